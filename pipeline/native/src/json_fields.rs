//! The fields of an event, and how the value of each one fills its columns.

use hashbrown::HashMap;
use pyo3::prelude::*;

use crate::json_scanner::Scanner;

/// In a column of indices: after the end of a text.
const NO_INDEX: f32 = -1.0;

/// A field as the Python codec describes it, a dictionary.
#[derive(FromPyObject)]
pub enum FieldSpec {
    /// One number or a list of them.
    Number {
        /// Name of the member.
        #[pyo3(item)]
        name: String,
        /// What all columns are if the member is absent; None if it is required.
        #[pyo3(item)]
        absent: Option<f32>,
        /// How many numbers.
        #[pyo3(item)]
        size: usize,
    },
    /// One of a list of values.
    Category {
        /// Name of the member.
        #[pyo3(item)]
        name: String,
        /// As for a number.
        #[pyo3(item)]
        absent: Option<f32>,
        /// The values, in the order of their columns.
        #[pyo3(item)]
        values: Vec<String>,
        /// For each value, whether the integer with this text has the same meaning.
        #[pyo3(item)]
        is_integer: Vec<bool>,
        /// Whether there is one column per value, or one with the index.
        #[pyo3(item)]
        is_one_hot: bool,
    },
    /// A text: one column per character.
    Text {
        /// Name of the member.
        #[pyo3(item)]
        name: String,
        /// As for a number.
        #[pyo3(item)]
        absent: Option<f32>,
        /// The characters, in the order of their indices.
        #[pyo3(item)]
        alphabet: String,
        /// The most characters, and the number of columns.
        #[pyo3(item)]
        length: usize,
    },
}

/// How a value fills its columns.
enum Kind {
    Number,
    Numbers,
    Category(Choices),
    Text(Alphabet),
}

/// A field of an event.
pub struct Field {
    /// Name of the member.
    pub name: String,
    /// Number of columns.
    pub width: usize,
    /// What all columns are if the member is absent; None if it is required.
    pub absent: Option<f32>,
    kind: Kind,
}

impl From<FieldSpec> for Field {
    fn from(spec: FieldSpec) -> Self {
        match spec {
            FieldSpec::Number { name, absent, size } => {
                let kind = if size == 1 {
                    Kind::Number
                } else {
                    Kind::Numbers
                };
                Self {
                    name,
                    width: size,
                    absent,
                    kind,
                }
            }
            FieldSpec::Category {
                name,
                absent,
                values,
                is_integer,
                is_one_hot,
            } => {
                let width = if is_one_hot { values.len() } else { 1 };
                let kind = Kind::Category(Choices::new(values, is_integer, is_one_hot));
                Self {
                    name,
                    width,
                    absent,
                    kind,
                }
            }
            FieldSpec::Text {
                name,
                absent,
                alphabet,
                length,
            } => {
                let kind = Kind::Text(Alphabet::new(&alphabet));
                Self {
                    name,
                    width: length,
                    absent,
                    kind,
                }
            }
        }
    }
}

impl Field {
    /// Read a value into the field's columns, which are zeros; None if it isn't a plain, valid one.
    #[inline]
    pub fn read(&self, scanner: &mut Scanner, columns: &mut [f32]) -> Option<()> {
        match &self.kind {
            Kind::Number => columns[0] = scanner.number()?,
            Kind::Numbers => read_numbers(scanner, columns)?,
            Kind::Category(choices) => choices.read(scanner, columns)?,
            Kind::Text(alphabet) => alphabet.read(scanner, columns)?,
        }
        Some(())
    }
}

#[inline]
fn read_numbers(scanner: &mut Scanner, columns: &mut [f32]) -> Option<()> {
    let mut before = b'[';
    for column in columns {
        scanner.punctuation(before)?;
        *column = scanner.number()?;
        before = b',';
    }
    scanner.punctuation(b']')
}

/// The values of a category.
struct Choices {
    by_text: HashMap<Box<[u8]>, usize>,
    is_integer: Vec<bool>,
    is_one_hot: bool,
}

impl Choices {
    fn new(values: Vec<String>, is_integer: Vec<bool>, is_one_hot: bool) -> Self {
        let by_text = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| (value.into_bytes().into_boxed_slice(), index))
            .collect();
        Self {
            by_text,
            is_integer,
            is_one_hot,
        }
    }

    fn read(&self, scanner: &mut Scanner, columns: &mut [f32]) -> Option<()> {
        let index = if scanner.peek()? == b'"' {
            *self.by_text.get(scanner.string()?)?
        } else {
            let index = *self.by_text.get(scanner.integer()?)?;
            if !*self.is_integer.get(index)? {
                return None;
            }
            index
        };
        if self.is_one_hot {
            columns[index] = 1.0;
        } else {
            columns[0] = index as f32;
        }
        Some(())
    }
}

/// The characters of a text.
struct Alphabet {
    /// Index of each ASCII character; None if it isn't in the alphabet.
    ascii: Vec<Option<f32>>,
    others: HashMap<char, f32>,
}

impl Alphabet {
    fn new(characters: &str) -> Self {
        let mut alphabet = Self {
            ascii: vec![None; 128],
            others: HashMap::new(),
        };
        for (index, character) in characters.chars().enumerate() {
            let index = index as f32;
            match alphabet.ascii.get_mut(character as usize) {
                Some(place) => *place = Some(index),
                None => {
                    alphabet.others.insert(character, index);
                }
            }
        }
        alphabet
    }

    fn read(&self, scanner: &mut Scanner, columns: &mut [f32]) -> Option<()> {
        let text = scanner.string()?;
        let count = if text.is_ascii() {
            if text.len() > columns.len() {
                return None;
            }
            for (column, &byte) in columns.iter_mut().zip(text) {
                *column = self.ascii[usize::from(byte)]?;
            }
            text.len()
        } else {
            self.read_utf8(std::str::from_utf8(text).ok()?, columns)?
        };
        columns[count..].fill(NO_INDEX);
        Some(())
    }

    /// Read a text with characters outside ASCII; return the number of characters.
    fn read_utf8(&self, text: &str, columns: &mut [f32]) -> Option<usize> {
        let mut count = 0;
        for character in text.chars() {
            let index = match self.ascii.get(character as usize) {
                Some(index) => (*index)?,
                None => *self.others.get(&character)?,
            };
            *columns.get_mut(count)? = index;
            count += 1;
        }
        Some(count)
    }
}
