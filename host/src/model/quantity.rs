//! Sizes and times as people write them: `"256MiB"`, `"10s"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size or time that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: write a whole number and a unit, such as {example}")]
pub struct QuantityError {
    what: &'static str,
    text: String,
    example: &'static str,
}

fn parse_quantity(
    what: &'static str,
    example: &'static str,
    units: &[(&str, u64)],
    text: &str,
) -> Result<u64, QuantityError> {
    let error = || QuantityError { what, example, text: text.chars().take(80).collect() };
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    number.checked_mul(*factor).ok_or_else(error)
}

/// Writes `value` in the largest unit that divides it without a rest.
fn format_quantity(
    formatter: &mut fmt::Formatter<'_>,
    units: &[(&str, u64)],
    value: u64,
) -> fmt::Result {
    let whole = |factor: &u64| value != 0 && value.is_multiple_of(*factor);
    let unit = units.iter().rev().find(|(_, factor)| whole(factor)).or(units.first());
    match unit {
        Some((name, factor)) => write!(formatter, "{}{name}", value / factor),
        None => write!(formatter, "{value}"),
    }
}

const BYTE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A number of bytes; written `"64KiB"`, `"128MiB"`, or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_quantity("size", "\"128MiB\" (units: B, KiB, MiB, GiB)", BYTE_UNITS, text).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_quantity(formatter, BYTE_UNITS, self.0)
    }
}

const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// A length of time in whole milliseconds; written `"500ms"`, `"10s"`, `"2m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// The same time as a [`Duration`].
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Millis {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_quantity("time", "\"10s\" (units: ms, s, m, h)", TIME_UNITS, text).map(Self)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_quantity(formatter, TIME_UNITS, self.0)
    }
}

/// Reads either the written form or a plain number in the smallest unit.
struct QuantityVisitor<T>(&'static str, fn(u64) -> T);

impl<T: FromStr<Err = QuantityError>> de::Visitor<'_> for QuantityVisitor<T> {
    type Value = T;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.1)(number))
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number).map_err(|_| E::custom("must not be negative"))?;
        Ok((self.1)(number))
    }
}

macro_rules! quantity_serde {
    ($type:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(QuantityVisitor($expecting, $type))
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
quantity_serde!(ByteSize, "a size such as \"128MiB\"");
quantity_serde!(Millis, "a time such as \"10s\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_written() {
        assert_eq!("128MiB".parse(), Ok(ByteSize(128 << 20)));
        assert_eq!("1500ms".parse(), Ok(Millis(1500)));
        assert_eq!(ByteSize(128 << 20).to_string(), "128MiB");
        assert_eq!(ByteSize(1500).to_string(), "1500B");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(Millis(90_000).to_string(), "90s");
        for bad in ["", "MiB", "1MB", "-1s", "1.5s", "99999999999GiB", "ten"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }
}
