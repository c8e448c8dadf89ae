//! A reader for comma-separated values, in the manner of RFC 4180.
//!
//! Fields may be quoted; inside quotes, commas and line ends are ordinary
//! characters and a doubled quote stands for one quote.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

#[derive(Debug, PartialEq, Eq)]
pub enum CsvError {
    /// A quoted field was still open at the end of the input.
    UnclosedQuote { record: usize },
    /// Something other than a separator followed a closing quote.
    TextAfterQuote { record: usize, found: char },
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnclosedQuote { record } => {
                write!(f, "record {record}: a quoted field is never closed")
            }
            Self::TextAfterQuote { record, found } => {
                write!(f, "record {record}: unexpected {found:?} after a closing quote")
            }
        }
    }
}

impl std::error::Error for CsvError {}

/// An iterator over the records of a text.
pub struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    separator: char,
    record: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self::with_separator(text, ',')
    }

    pub fn with_separator(text: &'a str, separator: char) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { chars: text.chars().peekable(), separator, record: 0 }
    }

    fn quoted(&mut self) -> Result<String, CsvError> {
        let mut field = String::new();
        loop {
            match self.chars.next() {
                Some('"') if self.chars.peek() == Some(&'"') => {
                    self.chars.next();
                    field.push('"');
                }
                Some('"') => return Ok(field),
                Some(c) => field.push(c),
                None => return Err(CsvError::UnclosedQuote { record: self.record }),
            }
        }
    }

    fn plain(&mut self) -> String {
        let mut field = String::new();
        while let Some(&c) = self.chars.peek() {
            if c == self.separator || c == '\n' || c == '\r' {
                break;
            }
            field.push(c);
            self.chars.next();
        }
        field
    }

    fn record(&mut self) -> Result<Vec<String>, CsvError> {
        let mut fields = Vec::new();
        loop {
            if self.chars.next_if_eq(&'"').is_some() {
                fields.push(self.quoted()?);
            } else {
                fields.push(self.plain());
            }
            match self.chars.next() {
                Some(c) if c == self.separator => continue,
                Some('\r') => {
                    self.chars.next_if_eq(&'\n');
                    return Ok(fields);
                }
                Some('\n') | None => return Ok(fields),
                Some(found) => {
                    return Err(CsvError::TextAfterQuote { record: self.record, found })
                }
            }
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Vec<String>, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chars.peek()?;
        self.record += 1;
        let result = self.record();
        if result.is_err() {
            // After an error the rest cannot be trusted.
            self.chars = "".chars().peekable();
        }
        Some(result)
    }
}

fn main() -> Result<(), CsvError> {
    let text = "name,born,motto\r\n\
                Ada,1815,\"numbers, and more\"\r\n\
                Zoë,1984,\"she said \"\"hello\"\"\"\n";
    for record in Reader::new(text) {
        println!("{}", record?.join(" | "));
    }
    Ok(())
}
