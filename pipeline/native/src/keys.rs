//! Keys: a partition and a name. Which key each event of a batch belongs to.

use std::hash::{BuildHasher, Hash};

use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::DefaultHashBuilder;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;

/// Hash a key; the hashes of a process are seeded at random, so no input can make them collide.
pub fn hash_key(hasher: &DefaultHashBuilder, partition: impl Hash, name: &[u8]) -> u64 {
    hasher.hash_one((partition, name))
}

/// Return the name of a key, which must not be missing.
pub fn name_at(names: &ByteColumn, row: usize) -> PyResult<&[u8]> {
    names
        .get(row)
        .ok_or_else(|| PyValueError::new_err(format!("key {row} is missing")))
}

/// Check that there are as many names as partitions.
pub fn check_lengths(partitions: &[i64], names: &ByteColumn) -> PyResult<()> {
    if partitions.len() == names.len() {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{} partitions for {} keys",
        partitions.len(),
        names.len()
    )))
}

/// Number the keys of events in order of their first event.
///
/// The twin is `livestep.pipeline.columns.keys.python_group`.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn group<'py>(
    py: Python<'py>,
    partitions: PyReadonlyArray1<'py, i64>,
    names: &ByteColumn,
) -> PyResult<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>)> {
    let partitions = partitions.as_slice()?;
    check_lengths(partitions, names)?;
    let (key_index, first) = numbered(partitions, names)?;
    Ok((key_index.into_pyarray(py), first.into_pyarray(py)))
}

fn numbered(partitions: &[i64], names: &ByteColumn) -> PyResult<(Vec<i64>, Vec<i64>)> {
    let hasher = DefaultHashBuilder::default();
    // The hash of a key is kept next to its number, so that growing hashes no name again.
    let mut numbers: HashTable<(u64, usize)> = HashTable::new();
    let mut key_index = Vec::with_capacity(partitions.len());
    let mut first: Vec<i64> = Vec::new();
    for (event, &partition) in partitions.iter().enumerate() {
        let name = name_at(names, event)?;
        let hash = hash_key(&hasher, partition, name);
        let is_same = |&(other_hash, number): &(u64, usize)| {
            let other = first[number] as usize;
            other_hash == hash && partitions[other] == partition && names.get(other) == Some(name)
        };
        match numbers.entry(hash, is_same, |&(other_hash, _)| other_hash) {
            Entry::Occupied(found) => key_index.push(found.get().1 as i64),
            Entry::Vacant(place) => {
                place.insert((hash, first.len()));
                key_index.push(first.len() as i64);
                first.push(event as i64);
            }
        }
    }
    Ok((key_index, first))
}
