//! Batches of records as columns, from the queue of a consumer's partitions.
//!
//! librdkafka keeps a queue for each partition. They are forwarded to one queue of ours, which is
//! drained here; the consumer's own queue is left with rebalances and errors of the client, for
//! `Consumer.poll`. So draining never rebalances.

use std::ffi::{c_int, CStr, CString};
use std::ptr;

use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::byte_column::ByteColumn;
use crate::librdkafka::{functions, Handle, Message};

/// Bytes of the head of a Python object: its reference count and its type.
const OBJECT_HEAD_BYTES: usize = 2 * size_of::<usize>();

/// Find librdkafka's functions through confluent-kafka's extension module.
#[pyfunction]
pub fn open_librdkafka(path: &str) -> PyResult<()> {
    crate::librdkafka::open(path).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Return the address of the `rd_kafka_t` of a client of confluent-kafka, and librdkafka's name of it.
///
/// Only for versions of confluent-kafka whose objects begin with that pointer.
#[pyfunction]
pub fn client_handle(client: &Bound<'_, PyAny>) -> PyResult<(usize, String)> {
    // SAFETY: the caller has checked the version: the pointer is the first member after the head.
    let handle = unsafe { *(client.as_ptr().byte_add(OBJECT_HEAD_BYTES).cast::<Handle>()) };
    if handle.is_null() {
        return Err(PyValueError::new_err("the client is closed"));
    }
    // SAFETY: as above; the name lives as long as the client.
    let name = unsafe { CStr::from_ptr((functions().client_name)(handle)) };
    Ok((handle as usize, name.to_string_lossy().into_owned()))
}

/// What a consumed message is, if it isn't a record: partition, offset, code and text of an error.
type Notice = (i32, i64, c_int, String);

type Header = (Vec<u8>, Option<Vec<u8>>);

#[derive(Default)]
struct Polled {
    partitions: Vec<i64>,
    offsets: Vec<i64>,
    timestamps_ms: Vec<i64>,
    keys: ByteColumn,
    values: ByteColumn,
    headers: Vec<(usize, Vec<Header>)>,
    notices: Vec<Notice>,
}

impl Polled {
    fn with_capacity(count: usize) -> Self {
        Self {
            partitions: Vec::with_capacity(count),
            offsets: Vec::with_capacity(count),
            timestamps_ms: Vec::with_capacity(count),
            keys: ByteColumn::with_capacity(count, count * 16),
            values: ByteColumn::with_capacity(count, count * 128),
            ..Self::default()
        }
    }

    /// Copy a message, which stays librdkafka's.
    fn add(&mut self, message: &Message) {
        let (call, pointer) = (functions(), ptr::from_ref(message));
        if message.error != 0 {
            // SAFETY: the text lives as long as the message.
            let text = unsafe { CStr::from_ptr((call.error_text)(pointer)) };
            let text = text.to_string_lossy().into_owned();
            self.notices
                .push((message.partition, message.offset, message.error, text));
            return;
        }
        let mut kind = 0;
        // SAFETY: a message of librdkafka.
        let timestamp_ms = unsafe { (call.timestamp)(pointer, &raw mut kind) };
        // SAFETY: librdkafka gives address and length of key and payload.
        let (key, value) = unsafe {
            (
                bytes_at(message.key, message.key_bytes),
                bytes_at(message.payload, message.payload_bytes),
            )
        };
        let headers = headers_of(message);
        if !headers.is_empty() {
            self.headers.push((self.offsets.len(), headers));
        }
        self.partitions.push(i64::from(message.partition));
        self.offsets.push(message.offset);
        self.timestamps_ms.push(timestamp_ms);
        self.keys.push(key);
        self.values.push(value);
    }
}

/// Return the bytes at an address, or None if it is null.
///
/// # Safety
/// So many bytes must be there, and remain as long as the result is used.
unsafe fn bytes_at<'a>(start: *const u8, count: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    Some(unsafe { std::slice::from_raw_parts(start, count) })
}

fn headers_of(message: &Message) -> Vec<Header> {
    let call = functions();
    let mut found = Vec::new();
    let mut list: Handle = ptr::null_mut();
    // SAFETY: a message of librdkafka, which keeps the list.
    if unsafe { (call.headers)(ptr::from_ref(message), &raw mut list) } != 0 {
        return found;
    }
    loop {
        let (mut name, mut value, mut count) = (ptr::null(), ptr::null(), 0);
        let index = found.len();
        // SAFETY: the list of this message; an index behind its end returns an error.
        let error =
            unsafe { (call.header_at)(list, index, &raw mut name, &raw mut value, &raw mut count) };
        if error != 0 {
            return found;
        }
        // SAFETY: name and value live as long as the message.
        let (name, value) = unsafe { (CStr::from_ptr(name), bytes_at(value, count)) };
        found.push((name.to_bytes().to_vec(), value.map(<[u8]>::to_vec)));
    }
}

/// The queue of the partitions of one consumer. Close it before the consumer.
#[pyclass(module = "livestep.pipeline.native._native")]
pub struct PartitionQueue {
    client: usize,
    queue: usize,
}

#[pymethods]
impl PartitionQueue {
    /// Make an empty queue of a consumer; see `client_handle`.
    #[new]
    fn new(client: usize) -> Self {
        // SAFETY: the caller holds the consumer, and closes this queue first.
        let queue = unsafe { (functions().new_queue)(client as Handle) };
        Self {
            client,
            queue: queue as usize,
        }
    }

    /// Take the records of a partition; call it before the partition is assigned.
    fn add(&self, topic: &str, partition: i32) -> PyResult<()> {
        self.check_open()?;
        self.forward(topic, partition, self.queue as Handle)
    }

    /// Leave the records of a partition to the consumer; call it after the partition is unassigned.
    fn remove(&self, topic: &str, partition: i32) -> PyResult<()> {
        self.forward(topic, partition, ptr::null_mut())
    }

    /// Wait for a first record, and return it with all others that have arrived.
    ///
    /// Args:
    ///     records_max: Maximum number of records and notices.
    ///     timeout_ms: How long to wait for the first.
    ///
    /// Returns:
    ///     columns: Partitions, offsets, timestamps in ms, (n,) int64 each; keys and values; and the
    ///         headers of each record that has any, by its index, or why they can't be read.
    ///     notices: Ends of partitions and errors: partition, offset, code, text.
    #[allow(clippy::type_complexity)]
    fn poll<'py>(
        &self,
        py: Python<'py>,
        records_max: usize,
        timeout_ms: c_int,
    ) -> PyResult<(Columns<'py>, Vec<Notice>)> {
        self.check_open()?;
        let queue = self.queue;
        let polled = py.detach(|| drain(queue, records_max, timeout_ms));
        let headers = PyDict::new(py);
        for (index, found) in &polled.headers {
            headers.set_item(index, python_headers(py, found)?)?;
        }
        let columns = (
            polled.partitions.into_pyarray(py),
            polled.offsets.into_pyarray(py),
            polled.timestamps_ms.into_pyarray(py),
            Bound::new(py, polled.keys)?,
            Bound::new(py, polled.values)?,
            headers,
        );
        Ok((columns, polled.notices))
    }

    /// Give the queue back to librdkafka; a second call does nothing.
    fn close(&mut self) {
        if self.queue != 0 {
            // SAFETY: made by `new`, and given back once.
            unsafe { (functions().destroy_queue)(self.queue as Handle) };
            self.queue = 0;
        }
    }
}

type Numbers<'py> = Bound<'py, PyArray1<i64>>;
type Columns<'py> = (
    Numbers<'py>,
    Numbers<'py>,
    Numbers<'py>,
    Bound<'py, ByteColumn>,
    Bound<'py, ByteColumn>,
    Bound<'py, PyDict>,
);

impl PartitionQueue {
    fn check_open(&self) -> PyResult<()> {
        if self.queue == 0 {
            return Err(PyValueError::new_err("the queue is closed"));
        }
        Ok(())
    }

    fn forward(&self, topic: &str, partition: i32, target: Handle) -> PyResult<()> {
        let name = CString::new(topic)?;
        let call = functions();
        // SAFETY: the caller holds the consumer; the partition's queue is given back at once, and
        // forwarding keeps a reference of its own.
        unsafe {
            let source = (call.partition_queue)(self.client as Handle, name.as_ptr(), partition);
            if source.is_null() {
                let what = format!("{topic}/{partition} has no queue");
                return Err(PyRuntimeError::new_err(what));
            }
            (call.forward_queue)(source, target);
            (call.destroy_queue)(source);
        }
        Ok(())
    }
}

fn drain(queue: usize, records_max: usize, timeout_ms: c_int) -> Polled {
    let call = functions();
    let mut messages: Vec<*mut Message> = vec![ptr::null_mut(); records_max];
    let take = |room: &mut [*mut Message], timeout_ms| {
        // SAFETY: the queue is open, and there is room for so many.
        let count = unsafe {
            (call.consume_batch)(queue as Handle, timeout_ms, room.as_mut_ptr(), room.len())
        };
        usize::try_from(count).unwrap_or(0)
    };
    // With a timeout it waits until all have arrived, so only the first is waited for.
    let mut count = take(&mut messages[..1.min(records_max)], timeout_ms);
    if count > 0 {
        count += take(&mut messages[count..], 0);
    }
    let mut polled = Polled::with_capacity(count);
    for &message in &messages[..count] {
        // SAFETY: librdkafka's message, which is ours until we give it back, once.
        unsafe {
            polled.add(&*message);
            (call.destroy_message)(message);
        }
    }
    polled
}

/// Convert headers to a list of (name, value), or to the reason why that can't be.
fn python_headers<'py>(py: Python<'py>, headers: &[Header]) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(py);
    for (name, value) in headers {
        let text = match PyBytes::new(py, name).call_method0("decode") {
            Ok(text) => text,
            Err(error) => {
                let why = format!("a header name is not valid UTF-8: {}", error.value(py));
                return Ok(why.into_pyobject(py)?.into_any());
            }
        };
        let value = value.as_ref().map(|bytes| PyBytes::new(py, bytes));
        list.append(PyTuple::new(py, [text, value.into_pyobject(py)?])?)?;
    }
    Ok(list.into_any())
}
