//! Columns of short texts that are made from numbers.

use std::io::Write;

use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;

/// Longest decimal text of an int64.
const DIGITS_MAX: usize = 20;

/// Write each number as decimal text; `numbers` is (n,) int64.
#[pyfunction]
pub fn decimal_column(numbers: PyReadonlyArray1<'_, i64>) -> ByteColumn {
    let numbers = numbers.as_array();
    let mut column = ByteColumn::with_capacity(numbers.len(), numbers.len() * DIGITS_MAX);
    for number in numbers {
        column.push_with(|text| write_number(text, *number));
    }
    column
}

/// Write the source of each event, topic/partition/offset; the numbers are (n,) int64 each.
#[pyfunction]
pub fn source_column(
    topic: &[u8],
    partitions: PyReadonlyArray1<'_, i64>,
    offsets: PyReadonlyArray1<'_, i64>,
) -> PyResult<ByteColumn> {
    let (partitions, offsets) = (partitions.as_array(), offsets.as_array());
    if partitions.len() != offsets.len() {
        return Err(PyValueError::new_err("the columns have different lengths"));
    }
    let bytes = topic.len() + 2 + 2 * DIGITS_MAX;
    let mut column = ByteColumn::with_capacity(offsets.len(), offsets.len() * bytes);
    for (partition, offset) in partitions.iter().zip(offsets) {
        column.push_with(|text| {
            text.extend_from_slice(topic);
            text.push(b'/');
            write_number(text, *partition);
            text.push(b'/');
            write_number(text, *offset);
        });
    }
    Ok(column)
}

fn write_number(text: &mut Vec<u8>, number: i64) {
    write!(text, "{number}").expect("a vector takes all bytes");
}
