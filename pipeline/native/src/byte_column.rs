//! A column of byte strings in one allocation: the keys or the values of the records of a poll.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods, PyIterator};

/// Byte strings in order; some may be missing (None).
///
/// The twin is `livestep.pipeline.columns.byte_column.ByteColumn`.
#[pyclass(frozen, module = "livestep.pipeline.native._native")]
#[derive(Default)]
pub struct ByteColumn {
    data: Vec<u8>,
    /// End of each string in `data`; it starts where the one before ends.
    ends: Vec<usize>,
    /// Which are missing; None if none is.
    missing: Option<Vec<bool>>,
}

impl ByteColumn {
    /// Make an empty column with room for `count` strings of `bytes` bytes in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            data: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
            missing: None,
        }
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Append a string, or None.
    pub fn push(&mut self, value: Option<&[u8]>) {
        if let Some(bytes) = value {
            self.data.extend_from_slice(bytes);
        } else if self.missing.is_none() {
            self.missing = Some(vec![false; self.ends.len()]);
        }
        self.end(value.is_none());
    }

    /// Append a string that `write` appends to the bytes it is given.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.end(false);
    }

    fn end(&mut self, is_missing: bool) {
        self.ends.push(self.data.len());
        if let Some(missing) = &mut self.missing {
            missing.push(is_missing);
        }
    }

    /// Return a string, or None if it is missing; panics if `index` is out of range.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        if self.missing.as_ref().is_some_and(|missing| missing[index]) {
            return None;
        }
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.data[start..self.ends[index]])
    }

    /// Iterate over all strings.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[pymethods]
impl ByteColumn {
    /// Copy strings of any iterable of `bytes | None`.
    #[new]
    #[pyo3(signature = (values = None))]
    fn new(values: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut column = Self::default();
        let Some(values) = values else {
            return Ok(column);
        };
        for value in PyIterator::from_object(values)? {
            let value: Option<Bound<'_, PyBytes>> = value?.extract()?;
            column.push(value.as_ref().map(|bytes| bytes.as_bytes()));
        }
        Ok(column)
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if index >= self.len() {
            return Err(PyIndexError::new_err(format!(
                "index {index} in a column of {}",
                self.len()
            )));
        }
        Ok(self.get(index).map(|bytes| PyBytes::new(py, bytes)))
    }

    /// Copy the strings at `rows`, (m,) int64, in that order.
    pub fn take(&self, rows: PyReadonlyArray1<'_, i64>) -> PyResult<Self> {
        let rows = rows.as_array();
        let mean = self.data.len() / self.len().max(1) + 1;
        let mut column = Self::with_capacity(rows.len(), rows.len() * mean);
        for &row in rows {
            match usize::try_from(row) {
                Ok(index) if index < self.len() => column.push(self.get(index)),
                _ => {
                    return Err(PyIndexError::new_err(format!(
                        "row {row} in a column of {}",
                        self.len()
                    )))
                }
            }
        }
        Ok(column)
    }

    /// Return the length of each string: (n,) int64, -1 for one that is missing.
    fn lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let lengths: Vec<i64> = self
            .iter()
            .map(|value| value.map_or(-1, |bytes| bytes.len() as i64))
            .collect();
        lengths.into_pyarray(py)
    }

    /// Return all strings as a list of `bytes | None`.
    fn to_list<'py>(&self, py: Python<'py>) -> Vec<Option<Bound<'py, PyBytes>>> {
        self.iter()
            .map(|value| value.map(|bytes| PyBytes::new(py, bytes)))
            .collect()
    }
}
