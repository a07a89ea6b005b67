//! The table from a key to its slot in the pool of states.

use compact_bytes::CompactBytes;
use hashbrown::hash_table::{Entry, HashTable};
use hashbrown::DefaultHashBuilder;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;
use crate::keys::{check_lengths, hash_key, name_at};

/// The partition of a slot without a key.
const FREE: i32 = -1;

/// Which slot each key has; 35 to 40 bytes a slot for names of up to 23 bytes.
///
/// The twin is `livestep.pipeline.columns.key_table.PythonKeyTable`.
#[pyclass(module = "livestep.pipeline.native._native")]
pub struct KeyTable {
    hasher: DefaultHashBuilder,
    /// Slots by the hash of their key.
    table: HashTable<u32>,
    /// Partition of each slot's key, or `FREE`.
    partitions: Vec<i32>,
    /// Name of each slot's key; stored in place if it is short.
    names: Vec<CompactBytes>,
}

impl KeyTable {
    fn found(&self, partition: i32, name: &[u8]) -> Option<u32> {
        let hash = hash_key(&self.hasher, partition, name);
        let is_same = |&slot: &u32| {
            let slot = slot as usize;
            self.partitions[slot] == partition && self.names[slot].as_slice() == name
        };
        self.table.find(hash, is_same).copied()
    }

    fn insert_one(&mut self, partition: i32, name: &[u8], slot: i64) -> PyResult<()> {
        let index = self.index_of(slot)?;
        if self.partitions[index] != FREE {
            return Err(PyValueError::new_err(format!("slot {slot} has a key")));
        }
        let Self {
            hasher,
            table,
            partitions,
            names,
        } = self;
        let is_same = |&slot: &u32| {
            let slot = slot as usize;
            partitions[slot] == partition && names[slot].as_slice() == name
        };
        let hash_again = |&slot: &u32| {
            let slot = slot as usize;
            hash_key(hasher, partitions[slot], names[slot].as_slice())
        };
        match table.entry(hash_key(hasher, partition, name), is_same, hash_again) {
            Entry::Occupied(found) => {
                let other = found.get();
                return Err(PyValueError::new_err(format!(
                    "a key has slot {other} already"
                )));
            }
            Entry::Vacant(place) => place.insert(index as u32),
        };
        self.partitions[index] = partition;
        self.names[index] = CompactBytes::new(name);
        Ok(())
    }

    /// Free a slot that has a key.
    fn remove_one(&mut self, index: usize) {
        let hash = hash_key(
            &self.hasher,
            self.partitions[index],
            self.names[index].as_slice(),
        );
        if let Ok(found) = self.table.find_entry(hash, |&slot| slot as usize == index) {
            found.remove();
        }
        self.partitions[index] = FREE;
        self.names[index] = CompactBytes::empty();
    }

    fn index_of(&self, slot: i64) -> PyResult<usize> {
        match usize::try_from(slot) {
            Ok(index) if index < self.names.len() => Ok(index),
            _ => Err(PyValueError::new_err(format!(
                "slot {slot} of {}",
                self.names.len()
            ))),
        }
    }
}

#[pymethods]
impl KeyTable {
    #[new]
    fn new(slots: u32) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            partitions: vec![FREE; slots as usize],
            names: vec![CompactBytes::empty(); slots as usize],
        }
    }

    fn __len__(&self) -> usize {
        self.table.len()
    }

    /// Return the slot of each key: (N,) int64, -1 for a key without one.
    fn find<'py>(
        &self,
        py: Python<'py>,
        partitions: PyReadonlyArray1<'py, i64>,
        names: &ByteColumn,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let partitions = partitions.as_slice()?;
        check_lengths(partitions, names)?;
        let mut slots = Vec::with_capacity(partitions.len());
        for (row, &partition) in partitions.iter().enumerate() {
            let found = self.found(checked(partition)?, name_at(names, row)?);
            slots.push(found.map_or(-1, i64::from));
        }
        Ok(slots.into_pyarray(py))
    }

    /// Give slots to the keys at `rows`, (m,) int64, in that order.
    fn insert(
        &mut self,
        partitions: PyReadonlyArray1<'_, i64>,
        names: &ByteColumn,
        rows: PyReadonlyArray1<'_, i64>,
        slots: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<()> {
        let partitions = partitions.as_slice()?;
        check_lengths(partitions, names)?;
        let (rows, slots) = (rows.as_array(), slots.as_array());
        if rows.len() != slots.len() {
            return Err(PyValueError::new_err(format!(
                "{} slots for {} keys",
                slots.len(),
                rows.len()
            )));
        }
        for (&row, &slot) in rows.iter().zip(slots) {
            let index = usize::try_from(row)
                .ok()
                .filter(|&index| index < partitions.len());
            let index = index.ok_or_else(|| {
                PyValueError::new_err(format!("row {row} of {}", partitions.len()))
            })?;
            self.insert_one(checked(partitions[index])?, name_at(names, index)?, slot)?;
        }
        Ok(())
    }

    /// Remove the keys of slots, (m,) int64.
    fn remove(&mut self, slots: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
        for &slot in slots.as_array() {
            let index = self.index_of(slot)?;
            if self.partitions[index] == FREE {
                return Err(PyValueError::new_err(format!("slot {slot} has no key")));
            }
            self.remove_one(index);
        }
        Ok(())
    }

    /// Remove all keys of a partition; return their slots, (m,) int64, ascending.
    fn forget<'py>(
        &mut self,
        py: Python<'py>,
        partition: i64,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let partition = checked(partition)?;
        let found = |index: &usize| self.partitions[*index] == partition;
        let indices: Vec<usize> = (0..self.partitions.len()).filter(found).collect();
        for &index in &indices {
            self.remove_one(index);
        }
        let slots: Vec<i64> = indices.into_iter().map(|index| index as i64).collect();
        Ok(slots.into_pyarray(py))
    }
}

/// Check that a number is a partition of Kafka.
fn checked(partition: i64) -> PyResult<i32> {
    match i32::try_from(partition) {
        Ok(checked) if checked >= 0 => Ok(checked),
        _ => Err(PyValueError::new_err(format!(
            "{partition} is not a partition"
        ))),
    }
}
