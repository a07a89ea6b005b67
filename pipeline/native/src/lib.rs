//! The loops of livestep that run once per record.
//!
//! Each function has a twin in Python, `livestep.pipeline.columns`, which defines what it returns and
//! is used where this library isn't built. The only `unsafe` code is in the calls of librdkafka.

use pyo3::prelude::*;

mod byte_column;
mod consumer;
mod float32;
mod json_decoder;
mod json_encoder;
mod json_fields;
mod json_scanner;
mod key_table;
mod keys;
mod librdkafka;
mod producer;
mod text_columns;

/// The native loops of livestep; use them through `livestep.pipeline.columns`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<byte_column::ByteColumn>()?;
    module.add_class::<consumer::PartitionQueue>()?;
    module.add_class::<producer::TopicSender>()?;
    module.add_function(wrap_pyfunction!(consumer::open_librdkafka, module)?)?;
    module.add_function(wrap_pyfunction!(consumer::client_handle, module)?)?;
    module.add_function(wrap_pyfunction!(text_columns::decimal_column, module)?)?;
    module.add_function(wrap_pyfunction!(text_columns::source_column, module)?)?;
    module.add_class::<key_table::KeyTable>()?;
    module.add_function(wrap_pyfunction!(keys::group, module)?)?;
    module.add_class::<json_decoder::JsonDecoder>()?;
    module.add_class::<json_encoder::JsonEncoder>()?;
    module.add_function(wrap_pyfunction!(float32::decode_float32, module)?)?;
    module.add_function(wrap_pyfunction!(float32::encode_float32, module)?)?;
    Ok(())
}
