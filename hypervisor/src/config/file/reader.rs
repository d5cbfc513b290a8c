//! A table of the file that knows which keys it may have and where everything stands.

use crate::config::{Bytes, ConfigError, MEMORY_SIZES, Place, Problem, parse_size};
use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue, Error};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The file's text, to turn offsets into places.
pub(super) struct Text<'s>(&'s str);

/// A byte offset in the text.
pub(super) type At = usize;

impl<'s> Text<'s> {
    pub(super) fn new(text: &'s str) -> Self {
        Self(text)
    }

    pub(super) fn as_str(&self) -> &'s str {
        self.0
    }

    fn place(&self, at: At) -> Place {
        let before = self.0.get(..at).unwrap_or(self.0);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line, column: before[start..].chars().count() + 1 }
    }

    fn error(&self, at: At, problem: Problem) -> ConfigError {
        ConfigError { place: Some(self.place(at)), problem }
    }

    /// The parser's error, as one of ours.
    pub(super) fn syntax(&self, error: &Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let found = self.0.get(span.clone()).unwrap_or_default();
        let problem = if error.message().starts_with("duplicate key") {
            Problem::Duplicate(found.trim().into())
        } else {
            Problem::Syntax(error.message().into())
        };
        self.error(span.start, problem)
    }
}

/// One table.
pub(super) struct Reader<'a, 's> {
    text: &'a Text<'s>,
    path: String,
    table: &'a DeTable<'s>,
    at: At,
}

impl<'a, 's> Reader<'a, 's> {
    /// A table that may have only these keys.
    pub(super) fn new(
        text: &'a Text<'s>,
        path: &str,
        table: &'a DeTable<'s>,
        at: At,
        valid: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let unknown = table.iter().map(|(key, _)| key).filter(|key| {
            let key: &str = key.get_ref();
            !valid.contains(&key)
        });
        // The table is sorted by key; a person reads from the top.
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let name = key.get_ref().to_string();
            let table = if path.is_empty() { String::new() } else { format!("[{path}]") };
            let problem = Problem::UnknownKey { key: name, table, valid };
            return Err(text.error(key.span().start, problem));
        }
        Ok(Self { text, path: path.into(), table, at })
    }

    /// An error at this place.
    pub(super) fn error(&self, at: At, problem: Problem) -> ConfigError {
        self.text.error(at, problem)
    }

    /// Where the table starts.
    pub(super) fn at(&self) -> At {
        self.at
    }

    /// Where a key stands, if it is there.
    pub(super) fn find(&self, key: &str) -> Option<At> {
        self.table.get_key_value(key).map(|(key, _)| key.span().start)
    }

    /// Where a key stands, or the table where it is absent.
    pub(super) fn at_key(&self, key: &str) -> At {
        self.find(key).unwrap_or(self.at)
    }

    /// Refuses the table for lack of a key.
    pub(super) fn missing(&self, key: &'static str, example: &'static str) -> ConfigError {
        self.error(self.at, Problem::Missing { key, table: self.path.clone(), example })
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'s>>> {
        self.table.get(key)
    }

    fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &'static str,
    ) -> ConfigError {
        let found = describe(value.get_ref());
        self.error(value.span().start, Problem::Type { key: key.into(), found, wanted })
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<(&'a str, At)>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some((text, value.span().start))),
            _ => Err(self.wrong_type(key, value, "a text in quotes")),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(yes) => Ok(Some(*yes)),
            _ => Err(self.wrong_type(key, value, "true or false")),
        }
    }

    pub(super) fn integer(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        self.number(key, value, &range).map(Some)
    }

    /// A list of numbers.
    pub(super) fn integers(
        &self,
        key: &str,
        range: core::ops::RangeInclusive<u32>,
    ) -> Result<Option<Vec<u32>>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a list of whole numbers, such as [0, 1]"));
        };
        array.iter().map(|item| self.number(key, item, &range)).collect::<Result<_, _>>().map(Some)
    }

    fn number(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        range: &core::ops::RangeInclusive<u32>,
    ) -> Result<u32, ConfigError> {
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a whole number"));
        };
        let parsed = u32::from_str_radix(number.as_str(), number.radix());
        if let Some(number) = parsed.ok().filter(|number| range.contains(number)) {
            return Ok(number);
        }
        let range = format!("{} to {}", range.start(), range.end());
        let problem = Problem::Range { key: key.into(), found: number.to_string(), range };
        Err(self.error(value.span().start, problem))
    }

    /// A size: a text such as "64M", or a number of bytes.
    pub(super) fn size(&self, key: &str) -> Result<Option<(u64, At)>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let at = value.span().start;
        let (least, most) = (MEMORY_SIZES.start(), MEMORY_SIZES.end());
        let size = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| Problem::Range {
                    key: key.into(),
                    found: number.to_string(),
                    range: format!("{} to {}", Bytes(*least), Bytes(*most)),
                }),
            DeValue::String(text) => parse_size(text).map_err(|why| Problem::Size {
                key: key.into(),
                found: text.to_string(),
                why,
            }),
            _ => return Err(self.wrong_type(key, value, "a size, such as \"64M\"")),
        };
        size.map(|size| Some((size, at))).map_err(|problem| self.error(at, problem))
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        names: &'static [&'static str],
        values: &[(&'static str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, at)) = self.string(key)? else { return Ok(None) };
        if let Some((_, value)) = values.iter().find(|(name, _)| *name == text) {
            return Ok(Some(*value));
        }
        let problem = Problem::Choice { key: key.into(), found: text.into(), valid: names };
        Err(self.error(at, problem))
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let wanted = "a list of texts in quotes";
        let Some(value) = self.get(key) else { return Ok(None) };
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.wrong_type(key, value, wanted));
        };
        let text = |item: &'a Spanned<DeValue<'s>>| match item.get_ref() {
            DeValue::String(text) => Ok(&**text),
            _ => Err(self.wrong_type(key, item, "only texts in quotes in the list")),
        };
        array.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn table(
        &self,
        key: &str,
        valid: &'static [&'static str],
    ) -> Result<Option<Self>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        self.reader(key, value, valid).map(Some)
    }

    /// `[[path.key]]`; at most `most` of them.
    pub(super) fn tables(
        &self,
        key: &str,
        most: usize,
        valid: &'static [&'static str],
    ) -> Result<Vec<Self>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a list of tables, with [[…]]"));
        };
        let length = crate::config::validate::count(key, array.len(), most);
        length.map_err(|problem| self.error(self.at_key(key), problem))?;
        array.iter().map(|item| self.reader(key, item, valid)).collect()
    }

    fn reader(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'s>>,
        valid: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a table"));
        };
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{key}", self.path);
        Self::new(self.text, &path, table, value.span().start, valid)
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
