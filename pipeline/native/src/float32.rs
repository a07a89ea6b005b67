//! Raw float32, little-endian: values to rows of numbers, and back.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;

const BYTES: usize = 4;

/// Inputs, (n, width); which values are declined, (n,).
type Decoded<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<bool>>);

/// Read values of `width` numbers each.
///
/// Returns inputs, (n, width) float32, and which values have another length, (n,) bool. The rows of
/// those are zeros.
#[pyfunction]
pub fn decode_float32<'py>(
    py: Python<'py>,
    values: &Bound<'py, ByteColumn>,
    width: usize,
) -> PyResult<Decoded<'py>> {
    let values = values.get();
    let count = values.len();
    let mut inputs = vec![0.0; count * width];
    let mut is_declined = vec![false; count];
    py.detach(|| {
        for (index, value) in values.iter().enumerate() {
            let value = value.unwrap_or_default();
            if value.len() != width * BYTES {
                is_declined[index] = true;
                continue;
            }
            let row = &mut inputs[index * width..(index + 1) * width];
            for (column, number) in row.iter_mut().zip(value.chunks_exact(BYTES)) {
                *column = f32::from_le_bytes([number[0], number[1], number[2], number[3]]);
            }
        }
    });
    Ok((
        inputs.into_pyarray(py).reshape([count, width])?,
        is_declined.into_pyarray(py),
    ))
}

/// Write each row of `outputs`, (n, H_out) float32, C-contiguous.
#[pyfunction]
pub fn encode_float32(outputs: PyReadonlyArray2<'_, f32>) -> PyResult<ByteColumn> {
    let count = outputs.shape()[0];
    let width = outputs.shape()[1];
    let numbers = outputs.as_slice()?;
    let mut column = ByteColumn::with_capacity(count, numbers.len() * BYTES);
    for row in 0..count {
        column.push_with(|bytes| {
            for number in &numbers[row * width..(row + 1) * width] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        });
    }
    Ok(column)
}
