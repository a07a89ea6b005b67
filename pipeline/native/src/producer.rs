//! Records from columns to librdkafka's send queue.

use std::ffi::{c_int, CString};
use std::ptr;

use numpy::PyReadonlyArray1;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;
use crate::librdkafka::{functions, kinds, Argument, ArgumentValue, Handle, HeaderArgument, COPY};

/// Arguments of every record; its headers follow.
const ARGUMENTS: usize = 6;

/// A header of many records: one value for all, or a column in which None means no such header.
#[derive(FromPyObject)]
enum HeaderValues<'py> {
    Column(PyRef<'py, ByteColumn>),
    Same(Vec<u8>),
}

struct HeaderColumn<'a> {
    name: CString,
    values: Result<&'a ByteColumn, &'a [u8]>,
}

impl HeaderColumn<'_> {
    fn at(&self, index: usize) -> Option<&[u8]> {
        match self.values {
            Ok(column) => column.get(index),
            Err(same) => Some(same),
        }
    }
}

/// One topic of a producer. Close it before the producer.
#[pyclass(module = "livestep.pipeline.native._native")]
pub struct TopicSender {
    client: usize,
    topic: usize,
}

#[pymethods]
impl TopicSender {
    /// Open a topic of a producer; see `client_handle`.
    #[new]
    fn new(client: usize, topic: &str) -> PyResult<Self> {
        let name = CString::new(topic)?;
        // SAFETY: the caller holds the producer, and closes this first.
        let topic =
            unsafe { (functions().new_topic)(client as Handle, name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            // SAFETY: no arguments; the error of this thread's last call.
            let code = unsafe { (functions().last_error)() };
            let what = format!("topic {name:?} can't be opened: error {code}");
            return Err(PyRuntimeError::new_err(what));
        }
        Ok(Self {
            client,
            topic: topic as usize,
        })
    }

    /// Queue records, in order, until one can't be queued.
    ///
    /// Args:
    ///     start: Index of the first record to send.
    ///     keys: n keys.
    ///     values: n values.
    ///     partitions: (n,) int64.
    ///     timestamps_ms: (n,) int64.
    ///     headers: Names with their values: n, None for a record without that header; or one for all.
    ///
    /// Returns:
    ///     end: Index of the first record that was not queued; n if all were.
    ///     code: librdkafka's error of that one, or 0.
    #[pyo3(signature = (start, *, keys, values, partitions, timestamps_ms, headers))]
    #[allow(clippy::too_many_arguments)]
    fn send(
        &self,
        py: Python<'_>,
        start: usize,
        keys: PyRef<'_, ByteColumn>,
        values: PyRef<'_, ByteColumn>,
        partitions: PyReadonlyArray1<'_, i64>,
        timestamps_ms: PyReadonlyArray1<'_, i64>,
        headers: Vec<(String, HeaderValues<'_>)>,
    ) -> PyResult<(usize, c_int)> {
        let columns = headers
            .iter()
            .map(|(name, values)| {
                Ok(HeaderColumn {
                    name: CString::new(name.as_str())?,
                    values: match values {
                        HeaderValues::Column(column) => Ok(&**column),
                        HeaderValues::Same(same) => Err(same),
                    },
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let (partitions, timestamps_ms) = (partitions.as_slice()?, timestamps_ms.as_slice()?);
        let count = keys.len();
        let lengths = [values.len(), partitions.len(), timestamps_ms.len()];
        let is_same = |column: &HeaderColumn| column.values.map_or(true, |one| one.len() == count);
        if lengths != [count; 3] || !columns.iter().all(is_same) {
            return Err(PyValueError::new_err("the columns have different lengths"));
        }
        if self.topic == 0 {
            return Err(PyValueError::new_err("the topic is closed"));
        }
        let (keys, values) = (&*keys, &*values);
        Ok(py.detach(|| {
            let mut arguments = Vec::with_capacity(ARGUMENTS + columns.len());
            for index in start..count {
                arguments.clear();
                arguments.extend([
                    argument(kinds::TOPIC_HANDLE, |value| {
                        value.handle = self.topic as Handle
                    }),
                    argument(kinds::PARTITION, |value| {
                        value.partition = partitions[index] as i32
                    }),
                    argument(kinds::VALUE, |value| {
                        value.bytes = address(values.get(index))
                    }),
                    argument(kinds::KEY, |value| value.bytes = address(keys.get(index))),
                    argument(kinds::FLAGS, |value| value.flags = COPY),
                    argument(kinds::TIMESTAMP, |value| {
                        value.timestamp_ms = timestamps_ms[index]
                    }),
                ]);
                for column in &columns {
                    if let Some(text) = column.at(index) {
                        let header = HeaderArgument {
                            name: column.name.as_ptr(),
                            value: text.as_ptr(),
                            value_bytes: text.len() as isize,
                        };
                        arguments.push(argument(kinds::HEADER, |value| value.header = header));
                    }
                }
                let code = produce(self.client as Handle, &arguments);
                if code != 0 {
                    return (index, code);
                }
            }
            (count, 0)
        }))
    }

    /// Give the topic back to librdkafka; a second call does nothing.
    fn close(&mut self) {
        if self.topic != 0 {
            // SAFETY: made by `new`, and given back once.
            unsafe { (functions().destroy_topic)(self.topic as Handle) };
            self.topic = 0;
        }
    }
}

fn argument(kind: c_int, set: impl FnOnce(&mut ArgumentValue)) -> Argument {
    let mut value = ArgumentValue { reserved: [0; 64] };
    set(&mut value);
    Argument { kind, value }
}

fn address(bytes: Option<&[u8]>) -> (*const u8, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()))
}

/// Queue one record; librdkafka copies all of it. Return its error code, or 0.
fn produce(client: Handle, arguments: &[Argument]) -> c_int {
    let call = functions();
    // SAFETY: each argument has the member of its kind, and the memory that it points to is borrowed
    // until this returns. The error is ours, and given back once.
    unsafe {
        let error = (call.produce)(client, arguments.as_ptr(), arguments.len());
        if error.is_null() {
            return 0;
        }
        let code = (call.error_code)(error);
        (call.destroy_error)(error);
        code
    }
}
