//! Rows of numbers to JSON predictions, with the digits of a float32 that orjson writes.

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;

/// A piece of every prediction, as the Python codec describes it, a dictionary.
#[derive(FromPyObject)]
enum Piece {
    /// The same bytes in every prediction.
    Fixed {
        #[pyo3(item)]
        bytes: Vec<u8>,
    },
    /// The numbers of columns next to each other, separated by commas.
    Numbers {
        #[pyo3(item)]
        first: usize,
        #[pyo3(item)]
        count: usize,
    },
    /// The label that was chosen for a category.
    Label {
        #[pyo3(item)]
        category: usize,
        #[pyo3(item)]
        labels: Vec<Vec<u8>>,
    },
}

/// Writes the predictions of one model.
#[pyclass(frozen, module = "livestep.pipeline.native._native")]
pub struct JsonEncoder {
    pieces: Vec<Piece>,
}

#[pymethods]
impl JsonEncoder {
    #[new]
    fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    /// Encode rows.
    ///
    /// `outputs`: (n, H_out) float32, C-contiguous, with probabilities for a category.
    /// `chosen`: for each category, in order, the index of its label, (n,) int64.
    fn encode(
        &self,
        outputs: PyReadonlyArray2<'_, f32>,
        chosen: Vec<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<ByteColumn> {
        let count = outputs.shape()[0];
        let width = outputs.shape()[1];
        let outputs = outputs.as_slice()?;
        let chosen = chosen
            .iter()
            .map(|indices| Ok(indices.as_slice()?))
            .collect::<PyResult<Vec<&[i64]>>>()?;
        let mut column = ByteColumn::with_capacity(count, count * (width * 12 + 32));
        for row in 0..count {
            let numbers = &outputs[row * width..(row + 1) * width];
            let mut is_written = true;
            column.push_with(|bytes| {
                is_written = self
                    .pieces
                    .iter()
                    .all(|piece| piece.write(bytes, row, numbers, &chosen).is_some());
            });
            if !is_written {
                return Err(PyValueError::new_err(format!(
                    "row {row}: a column or a label that does not exist"
                )));
            }
        }
        Ok(column)
    }
}

impl Piece {
    /// Append the piece to a row; None if the row has no such number or label.
    #[inline]
    fn write(
        &self,
        bytes: &mut Vec<u8>,
        row: usize,
        numbers: &[f32],
        chosen: &[&[i64]],
    ) -> Option<()> {
        match self {
            Self::Fixed { bytes: fixed } => bytes.extend_from_slice(fixed),
            Self::Numbers { first, count } => {
                for (index, &number) in numbers.get(*first..first + count)?.iter().enumerate() {
                    if index > 0 {
                        bytes.push(b',');
                    }
                    write_number(bytes, number);
                }
            }
            Self::Label { category, labels } => {
                let index = usize::try_from(*chosen.get(*category)?.get(row)?).ok()?;
                bytes.extend_from_slice(labels.get(index)?);
            }
        }
        Some(())
    }
}

/// Append a number with the fewest digits that yield this float32; JSON has no infinity and no NaN.
#[inline]
fn write_number(bytes: &mut Vec<u8>, number: f32) {
    if number.is_finite() {
        bytes.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    } else {
        bytes.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_digits_of_a_float32_and_yields_it_again() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-7, "1e-7"),
            (0.00001, "0.00001"),
            (1e12, "1000000000000.0"),
            (1e16, "1e+16"),
            (f32::NAN, "null"),
            (f32::NEG_INFINITY, "null"),
        ] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert_eq!(bytes, text.as_bytes());
        }
    }

    #[test]
    fn a_row_without_the_number_or_the_label_is_not_written() {
        let numbers = Piece::Numbers { first: 1, count: 2 };
        let label = Piece::Label {
            category: 0,
            labels: vec![b"\"a\"".to_vec()],
        };
        let mut bytes = Vec::new();
        assert_eq!(numbers.write(&mut bytes, 0, &[1.0, 2.0], &[]), None);
        assert_eq!(label.write(&mut bytes, 0, &[], &[&[1]]), None);
        assert_eq!(label.write(&mut bytes, 0, &[], &[&[-1]]), None);
        assert_eq!(label.write(&mut bytes, 1, &[], &[&[0]]), None);
        assert_eq!(label.write(&mut bytes, 0, &[], &[]), None);
        assert_eq!(label.write(&mut bytes, 0, &[], &[&[0]]), Some(()));
        assert_eq!(bytes, b"\"a\"");
    }
}
