//! The functions of librdkafka that the loops call, and the C types that they pass.
//!
//! They are found in the copy that confluent-kafka has loaded, so that a process has only one.
//!
//! Source: `rdkafka.h` of librdkafka 2.14.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

/// A `rd_kafka_t`, a `rd_kafka_queue_t`, or another object of librdkafka.
pub type Handle = *mut c_void;

/// `rd_kafka_message_t`.
#[repr(C)]
pub struct Message {
    pub error: c_int,
    pub topic: Handle,
    pub partition: i32,
    pub payload: *const u8,
    pub payload_bytes: usize,
    pub key: *const u8,
    pub key_bytes: usize,
    pub offset: i64,
    private: Handle,
}

/// The values of `rd_kafka_vu_t`; the last member has the size that librdkafka reserves.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ArgumentValue {
    pub handle: Handle,
    pub flags: c_int,
    pub partition: i32,
    pub timestamp_ms: i64,
    pub bytes: (*const u8, usize),
    pub header: HeaderArgument,
    pub reserved: [u8; 64],
}

/// The header of an `rd_kafka_vu_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeaderArgument {
    pub name: *const c_char,
    pub value: *const u8,
    pub value_bytes: isize,
}

/// One argument of `rd_kafka_produceva`: `rd_kafka_vu_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Argument {
    pub kind: c_int,
    pub value: ArgumentValue,
}

/// `rd_kafka_vtype_t`.
pub mod kinds {
    use std::ffi::c_int;
    pub const TOPIC_HANDLE: c_int = 2;
    pub const PARTITION: c_int = 3;
    pub const VALUE: c_int = 4;
    pub const KEY: c_int = 5;
    pub const FLAGS: c_int = 7;
    pub const TIMESTAMP: c_int = 8;
    pub const HEADER: c_int = 9;
}

/// `RD_KAFKA_MSG_F_COPY`: librdkafka copies the value.
pub const COPY: c_int = 2;

macro_rules! functions {
    ($($name:ident: $symbol:literal, fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Addresses of the functions, by what they do.
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of rdkafka.h, which librdkafka keeps compatible.
                unsafe { Ok(Self { $($name: *library.get($symbol)?,)* }) }
            }
        }
    };
}

functions! {
    client_name: b"rd_kafka_name", fn(Handle) -> *const c_char;
    consume_batch: b"rd_kafka_consume_batch_queue", fn(Handle, c_int, *mut *mut Message, usize) -> isize;
    destroy_message: b"rd_kafka_message_destroy", fn(*mut Message);
    timestamp: b"rd_kafka_message_timestamp", fn(*const Message, *mut c_int) -> i64;
    headers: b"rd_kafka_message_headers", fn(*const Message, *mut Handle) -> c_int;
    header_at: b"rd_kafka_header_get_all", fn(Handle, usize, *mut *const c_char, *mut *const u8, *mut usize) -> c_int;
    error_text: b"rd_kafka_message_errstr", fn(*const Message) -> *const c_char;
    partition_queue: b"rd_kafka_queue_get_partition", fn(Handle, *const c_char, i32) -> Handle;
    new_queue: b"rd_kafka_queue_new", fn(Handle) -> Handle;
    forward_queue: b"rd_kafka_queue_forward", fn(Handle, Handle);
    destroy_queue: b"rd_kafka_queue_destroy", fn(Handle);
    new_topic: b"rd_kafka_topic_new", fn(Handle, *const c_char, Handle) -> Handle;
    destroy_topic: b"rd_kafka_topic_destroy", fn(Handle);
    produce: b"rd_kafka_produceva", fn(Handle, *const Argument, usize) -> Handle;
    error_code: b"rd_kafka_error_code", fn(Handle) -> c_int;
    destroy_error: b"rd_kafka_error_destroy", fn(Handle);
    last_error: b"rd_kafka_last_error", fn() -> c_int;
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Find the functions, through a library that depends on librdkafka.
pub fn open(path: &str) -> Result<(), libloading::Error> {
    if FUNCTIONS.get().is_some() {
        return Ok(());
    }
    // SAFETY: Python has loaded this library before; its initializers don't run again.
    let library = unsafe { Library::new(path)? };
    let functions = Functions::find(&library)?;
    // The functions must outlive every client, so the library is never closed.
    std::mem::forget(library);
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

/// Return the functions; `open` was called.
pub fn functions() -> &'static Functions {
    FUNCTIONS.get().expect("librdkafka is not open")
}
