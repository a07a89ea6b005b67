"""A real Kafka broker: KRaft, no container; alone, or in a cluster (`kafka_cluster.py`).

Hides: the command lines of Java, the settings (`kafka/server.properties`) and the formatting of a
new log.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from livestep.deploy.local.child_process import Service, ServiceError, tethered
from livestep.deploy.local.ports import ReservedPort

#: Settings and log configuration.
CONFIGURATION = Path(__file__).with_name("kafka")

#: Heap of the broker: enough for tests and a benchmark of one worker, on the same machine.
HEAP = "-Xmx768m"

#: Without the second compiler, and with the simplest garbage collector, Java starts faster
#: (formatting a log takes 0.9 instead of 1.5 s): for short programs and brokers that are killed.
SHORT_RUN = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

#: How long the first metadata answer may take.
METADATA_TIMEOUT_S = 1.0

#: Formatting a log takes one to two seconds, most of it the start of Java.
FORMAT_TIMEOUT_S = 60.0

#: Any 16 bytes in base64: the log is not shared with another cluster.
CLUSTER_ID = "bGl2ZXN0ZXAtbG9jYWwtMQ"


class KafkaBroker(Service):
    """A Kafka broker with its data below one folder.

    Args:
        jars: Folder with Kafka's jars, see `deploy.local.jars.kafka_jars`.
        directory: An existing, separate folder for settings, log and data.
        settings: Broker settings that add to or override `server.properties`. They may use
            $client_port and $controller_port.
        name: For messages.
        java_options: Such as the heap size.
        client_options: Of librdkafka, for the client that checks whether the broker answers.
        format_arguments: Of the tool that formats the log, such as --add-scram.

    Attributes:
        settings: As passed; may be changed until the first start.

    Source:
        https://kafka.apache.org/documentation/#kraft
    """

    def __init__(
        self,
        jars: Path,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        name: str = "Kafka",
        java_options: Sequence[str] = (HEAP,),
        client_options: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
    ) -> None:
        self.settings = dict(settings or {})
        self._client_options = dict(client_options or {})
        self._client_port, self._controller_port = ReservedPort(), ReservedPort()
        self._data = directory / "data"
        self._settings_path = directory / "server.properties"
        java = java_command(directory)
        classes = ["-cp", f"{jars}/*"]
        super().__init__(
            name=name,
            command=[*java, *java_options, *classes, "kafka.Kafka", str(self._settings_path)],
            log_path=directory / "kafka.log",
        )
        tool = [*java, *SHORT_RUN, *classes, "kafka.tools.StorageTool", "format"]
        self._format_command = [*tool, *format_arguments]

    @property
    def bootstrap_servers(self) -> str:
        """Address for clients, in the form of Kafka's setting."""
        return f"127.0.0.1:{self._client_port.number}"

    @property
    def controller_address(self) -> str:
        """Address for the other nodes of its cluster."""
        return f"127.0.0.1:{self._controller_port.number}"

    def start(self) -> None:
        """Start the broker and wait until it answers; the first start formats a new log."""
        if not self._data.exists():
            self._prepare()
        super().start()

    def is_ready(self) -> bool:
        """Whether the broker answers a real client's metadata request."""
        # A new client each time, since one that was refused backs off longer and longer.
        settings: dict[str, str | int | float | bool] = {
            **self._client_options,
            "bootstrap.servers": self.bootstrap_servers,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
        try:
            return bool(AdminClient(settings).list_topics(timeout=METADATA_TIMEOUT_S).brokers)
        except KafkaException:
            return False

    def release(self) -> None:
        """Release the ports; it can't be restarted."""
        self._client_port.release()
        self._controller_port.release()

    def _prepare(self) -> None:
        """Write the settings and format the log."""
        lines = [(CONFIGURATION / "server.properties").read_text(encoding="utf-8")]
        # The last line with a name wins.
        lines += [f"{name}={value}" for name, value in self.settings.items()]
        settings = Template("\n".join(lines) + "\n").substitute(
            client_port=self._client_port.number,
            controller_port=self._controller_port.number,
            log_dir=self._data,
        )
        self._settings_path.write_text(settings, encoding="utf-8")
        command = [*self._format_command, "-t", CLUSTER_ID, "-c", str(self._settings_path)]
        with self.log_path.open("ab") as log:
            status = subprocess.run(
                tethered(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=FORMAT_TIMEOUT_S,
            ).returncode
        if status != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise self._start_error(f"could not format its log (exit status {status})")


def java_command(directory: Path) -> list[str]:
    """Return the start of Java's command line; Java writes only below `directory`.

    Raises:
        ServiceError: If java is not on the PATH.
    """
    java = shutil.which("java")
    if java is None:
        raise ServiceError(
            "java is not on the PATH: install Java 17 "
            "(apt-get install openjdk-17-jdk-headless, brew install openjdk@17)"
        )
    return [
        java,
        f"-Dlog4j2.configurationFile={CONFIGURATION / 'log4j2.properties'}",
        # Codecs unpack native libraries into the temporary folder, and a killed JVM leaves its
        # performance counters in another one.
        f"-Djava.io.tmpdir={directory}",
        "-XX:+PerfDisableSharedMem",
        f"-XX:ErrorFile={directory}/java-error.log",
    ]
