import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams, exactly once: one GRU step for each event by ONNX Runtime, hidden states in a persistent
 * (RocksDB) store with its changelog topic.
 *
 * <p>System properties: bootstrap, input, output, application, state (directory), model (ONNX file) and
 * commit (commit.interval.ms).
 */
public final class GruStreams {
  static final int H_IN = 12;
  static final int H = 64;
  static final String STORE = "hidden";

  /** One step of one key. */
  static final class Predict implements Processor<byte[], byte[], byte[], byte[]> {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final ObjectMapper mapper = new ObjectMapper();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> states;
    private OrtSession session;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      states = context.getStateStore(STORE);
      try {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.setInterOpNumThreads(1);
        session = environment.createSession(System.getProperty("model"), options);
      } catch (OrtException error) {
        throw new IllegalStateException(error);
      }
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      try {
        float[] x = features(record.value());
        float[] h = new float[H];
        byte[] state = states.get(record.key());
        if (state != null) {
          ByteBuffer.wrap(state).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(h);
        }
        try (OnnxTensor inputs = tensor(x);
            OnnxTensor hidden = tensor(h);
            OrtSession.Result result = session.run(Map.of("x", inputs, "h", hidden))) {
          float[] y = ((float[][]) result.get("y").get().getValue())[0];
          float[] next = ((float[][]) result.get("next_h").get().getValue())[0];
          ByteBuffer bytes = ByteBuffer.allocate(Float.BYTES * H).order(ByteOrder.LITTLE_ENDIAN);
          bytes.asFloatBuffer().put(next);
          states.put(record.key(), bytes.array());
          context.forward(record.withValue(prediction(y)));
        }
      } catch (IOException | OrtException error) {
        throw new IllegalStateException(error);
      }
    }

    private float[] features(byte[] value) throws IOException {
      JsonNode numbers = mapper.readTree(value).get("x");
      float[] x = new float[H_IN];
      for (int i = 0; i < H_IN; i++) {
        x[i] = (float) numbers.get(i).asDouble();
      }
      return x;
    }

    private OnnxTensor tensor(float[] row) throws OrtException {
      return OnnxTensor.createTensor(environment, FloatBuffer.wrap(row), new long[] {1, row.length});
    }

    private byte[] prediction(float[] y) throws IOException {
      ObjectNode object = mapper.createObjectNode();
      ArrayNode numbers = object.putArray("y");
      for (float number : y) {
        numbers.add(number);
      }
      return mapper.writeValueAsBytes(object);
    }
  }

  private static Properties settings() {
    Properties settings = new Properties();
    settings.put("application.id", System.getProperty("application"));
    settings.put("bootstrap.servers", System.getProperty("bootstrap"));
    settings.put("state.dir", System.getProperty("state"));
    settings.put("processing.guarantee", "exactly_once_v2");
    settings.put("commit.interval.ms", System.getProperty("commit"));
    settings.put("num.stream.threads", "1");
    settings.put("replication.factor", "1");
    settings.put("default.key.serde", Serdes.ByteArraySerde.class.getName());
    settings.put("default.value.serde", Serdes.ByteArraySerde.class.getName());
    settings.put("consumer.auto.offset.reset", "earliest");
    settings.put("consumer.max.poll.records", "5000");
    settings.put("producer.linger.ms", "5");
    return settings;
  }

  private static Topology topology() {
    Topology topology = new Topology();
    topology.addSource("events", System.getProperty("input"));
    topology.addProcessor("predict", Predict::new, "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), Serdes.ByteArray()),
        "predict");
    topology.addSink("predictions", System.getProperty("output"), "predict");
    return topology;
  }

  public static void main(String[] arguments) {
    KafkaStreams streams = new KafkaStreams(topology(), settings());
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
    streams.start();
  }
}
