//! The loops of livestep that run once per record.
//!
//! Each function has a twin in Python, `livestep.pipeline.columns`, which defines what it returns and
//! is used where this library isn't built. The only `unsafe` code is in the calls of librdkafka.

use pyo3::prelude::*;

mod byte_column;

/// The native loops of livestep; use them through `livestep.pipeline.columns`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<byte_column::ByteColumn>()?;
    Ok(())
}
