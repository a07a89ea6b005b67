//! JSON events to rows of numbers: sound, not complete.
//!
//! What is accepted here equals the answer of the Python codec, with the same bits. Everything else is
//! declined: escapes, unknown and repeated members, wrong kinds, numbers that float32 can't hold. The
//! Python codec reads what was declined, and has the reason if it is invalid.

use hashbrown::HashMap;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::byte_column::ByteColumn;
use crate::json_fields::{Field, FieldSpec};
use crate::json_scanner::Scanner;

/// The key's state is reset before the event.
const START: u8 = 1;
/// The key's sequence ends with the event.
const END: u8 = 2;
/// The event has no features.
const BARE: u8 = 4;

/// Inputs, (n, H_in); marks, (n,); requested steps, (n,); which are declined, (n,).
type Decoded<'py> = (
    Bound<'py, PyArray2<f32>>,
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<bool>>,
);

/// What a member of an event is.
enum Role {
    /// A feature, with its first column.
    Feature(Box<Field>, usize),
    Start,
    End,
    StepsMax,
}

struct Member {
    /// The name in quotes.
    quoted: Box<[u8]>,
    role: Role,
}

/// What was found for a member.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Nothing,
    Null,
    Value,
}

/// The marks of one event, and the steps that it requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Marks {
    bits: u8,
    steps_max: i64,
}

/// Reads the events of one model.
#[pyclass(frozen, module = "livestep.pipeline.native._native")]
pub struct JsonDecoder {
    /// The features in their order, then the marks.
    members: Vec<Member>,
    by_name: HashMap<Box<[u8]>, usize>,
    width: usize,
    steps_limit: i64,
}

#[pymethods]
impl JsonDecoder {
    /// Prepare for a model's fields, as `JsonCodec` describes them; `steps_limit` is 0 if the model does
    /// not generate sequences.
    #[new]
    fn new(fields: Vec<FieldSpec>, steps_limit: i64) -> PyResult<Self> {
        Self::build(fields.into_iter().map(Field::from).collect(), steps_limit)
            .ok_or_else(|| PyValueError::new_err("two fields of one name"))
    }

    /// Decode the values where `is_read`, (n,) bool, holds; the others are bare.
    ///
    /// A declined value has zeros and no marks.
    fn decode<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, ByteColumn>,
        is_read: PyReadonlyArray1<'py, bool>,
    ) -> PyResult<Decoded<'py>> {
        let values = values.get();
        let is_read = is_read.as_slice()?;
        let count = values.len();
        if is_read.len() != count {
            return Err(PyValueError::new_err(format!(
                "{} flags for {count} values",
                is_read.len()
            )));
        }
        let mut inputs = vec![0.0; count * self.width];
        let mut bits = vec![0; count];
        let mut steps_max = vec![0; count];
        let mut is_declined = vec![false; count];
        py.detach(|| {
            let mut found = vec![Found::Nothing; self.members.len()];
            for (index, value) in values.iter().enumerate() {
                if !is_read[index] {
                    bits[index] = BARE;
                    continue;
                }
                let row = &mut inputs[index * self.width..(index + 1) * self.width];
                match self.decode_one(value.unwrap_or_default(), row, &mut found) {
                    Some(marks) => {
                        bits[index] = marks.bits;
                        steps_max[index] = marks.steps_max;
                    }
                    None => {
                        row.fill(0.0);
                        is_declined[index] = true;
                    }
                }
            }
        });
        Ok((
            inputs.into_pyarray(py).reshape([count, self.width])?,
            bits.into_pyarray(py),
            steps_max.into_pyarray(py),
            is_declined.into_pyarray(py),
        ))
    }
}

impl JsonDecoder {
    /// Return a decoder, or None if two members have the same name.
    fn build(fields: Vec<Field>, steps_limit: i64) -> Option<Self> {
        let mut named = Vec::with_capacity(fields.len() + 3);
        let mut width = 0;
        for field in fields {
            let first = width;
            width += field.width;
            named.push((field.name.clone(), Role::Feature(Box::new(field), first)));
        }
        named.push(("start".to_owned(), Role::Start));
        named.push(("end".to_owned(), Role::End));
        if steps_limit > 0 {
            named.push(("steps_max".to_owned(), Role::StepsMax));
        }
        let by_name: HashMap<Box<[u8]>, usize> = named
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.as_bytes().into(), index))
            .collect();
        let members: Vec<Member> = named
            .into_iter()
            .map(|(name, role)| Member {
                quoted: format!("\"{name}\"").into_bytes().into_boxed_slice(),
                role,
            })
            .collect();
        (by_name.len() == members.len()).then_some(Self {
            members,
            by_name,
            width,
            steps_limit,
        })
    }

    /// Decode one value into a row of zeros; None if it is declined, and then the row is undefined.
    fn decode_one(&self, value: &[u8], row: &mut [f32], found: &mut [Found]) -> Option<Marks> {
        let mut scanner = Scanner::new(value);
        let mut marks = Marks::default();
        found.fill(Found::Nothing);
        scanner.punctuation(b'{')?;
        if scanner.peek()? != b'}' {
            let mut expected = 0;
            loop {
                let index = self.member(&mut scanner, expected)?;
                scanner.punctuation(b':')?;
                if found[index] != Found::Nothing {
                    return None;
                }
                found[index] = self.read_member(&mut scanner, index, row, &mut marks)?;
                expected = index + 1;
                scanner.skip_space();
                if scanner.peek()? != b',' {
                    break;
                }
                scanner.punctuation(b',')?;
            }
        }
        scanner.punctuation(b'}')?;
        scanner.end()?;
        self.complete(row, found, marks)
    }

    /// Read a member's name; members usually come in the order of the fields.
    #[inline]
    fn member(&self, scanner: &mut Scanner, expected: usize) -> Option<usize> {
        if let Some(member) = self.members.get(expected) {
            if scanner.skip(&member.quoted) {
                return Some(expected);
            }
        }
        self.by_name.get(scanner.string()?).copied()
    }

    #[inline]
    fn read_member(
        &self,
        scanner: &mut Scanner,
        index: usize,
        row: &mut [f32],
        marks: &mut Marks,
    ) -> Option<Found> {
        match &self.members[index].role {
            Role::Feature(field, first) => {
                if field.absent.is_some() && scanner.skip(b"null") {
                    return Some(Found::Null);
                }
                field.read(scanner, &mut row[*first..first + field.width])?;
            }
            Role::Start => marks.bits |= START * u8::from(scanner.boolean()?),
            Role::End => marks.bits |= END * u8::from(scanner.boolean()?),
            Role::StepsMax => {
                if scanner.skip(b"null") {
                    return Some(Found::Null);
                }
                let steps_max = number_of(scanner.integer()?)?;
                if !(1..=self.steps_limit).contains(&steps_max) {
                    return None;
                }
                marks.steps_max = steps_max;
            }
        }
        Some(Found::Value)
    }

    /// Fill the columns of absent features; without any feature, an event with a mark is bare.
    fn complete(&self, row: &mut [f32], found: &[Found], mut marks: Marks) -> Option<Marks> {
        let mut absent_count = 0;
        let mut is_missing = false;
        let mut feature_count = 0;
        for (member, found) in self.members.iter().zip(found) {
            let Role::Feature(field, first) = &member.role else {
                continue;
            };
            feature_count += 1;
            if *found != Found::Value {
                absent_count += 1;
                match field.absent {
                    Some(absent) => row[*first..first + field.width].fill(absent),
                    None => is_missing = true,
                }
            }
        }
        if marks.bits != 0 && absent_count == feature_count {
            row.fill(0.0);
            marks.bits |= BARE;
        } else if is_missing {
            return None;
        }
        Some(marks)
    }
}

/// Convert the digits of an integer.
fn number_of(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder() -> JsonDecoder {
        let fields = vec![
            FieldSpec::Number {
                name: "pair".into(),
                absent: None,
                size: 2,
            },
            FieldSpec::Category {
                name: "dish".into(),
                absent: Some(0.0),
                values: vec!["ü".into(), "7".into()],
                is_integer: vec![false, true],
                is_one_hot: true,
            },
            FieldSpec::Text {
                name: "word".into(),
                absent: Some(-1.0),
                alphabet: "aé☃".into(),
                length: 3,
            },
        ];
        JsonDecoder::build(fields.into_iter().map(Field::from).collect(), 9).unwrap()
    }

    fn decode(decoder: &JsonDecoder, value: &[u8]) -> Option<(Vec<f32>, Marks)> {
        let mut row = vec![0.0; decoder.width];
        let mut found = vec![Found::Nothing; decoder.members.len()];
        let marks = decoder.decode_one(value, &mut row, &mut found)?;
        Some((row, marks))
    }

    const EVENT: &str =
        r#" {"word": "☃a", "pair":[1,-2.5e0], "dish":7, "start":true, "steps_max":9} "#;

    #[test]
    fn members_may_come_in_any_order_and_fill_their_columns() {
        let (row, marks) = decode(&decoder(), EVENT.as_bytes()).unwrap();
        assert_eq!(row, [1.0, -2.5, 0.0, 1.0, 2.0, 0.0, -1.0]);
        let expected = Marks {
            bits: START,
            steps_max: 9,
        };
        assert_eq!(marks, expected);
    }

    #[test]
    fn a_mark_without_features_is_bare_and_an_event_without_a_required_one_is_declined() {
        let decoder = decoder();
        let (row, marks) = decode(&decoder, br#"{"end":true,"dish":null}"#).unwrap();
        assert_eq!((row, marks.bits), (vec![0.0; 7], END | BARE));
        assert_eq!(decode(&decoder, br#"{"end":true,"dish":7}"#), None);
        assert_eq!(decode(&decoder, b"{}"), None);
    }

    #[test]
    fn no_change_of_a_byte_and_no_cut_makes_the_decoder_panic() {
        let decoder = decoder();
        let event = EVENT.as_bytes();
        for at in 0..event.len() {
            decode(&decoder, &event[..at]);
            decode(&decoder, &event[at..]);
            for byte in 0..=u8::MAX {
                let mut changed = event.to_vec();
                changed[at] = byte;
                decode(&decoder, &changed);
                changed.insert(at, byte);
                decode(&decoder, &changed);
            }
        }
    }
}
