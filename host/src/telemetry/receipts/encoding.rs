//! How a receipt lies in a segment.
//!
//! A record is `length: u32`, `checksum: u32` (CRC-32 of the payload) and the
//! payload, little-endian. The payload begins with what queries ask for, at
//! fixed places, so that most records are passed over without being decoded:
//!
//! ```text
//! id: 16 bytes, big-endian | outcome: 1 | flags: 1 | status: 2
//! [tenant length: 1, tenant, name length: 1, name]   if FUNCTION
//! [revision]                                          if REVISION
//! total, queue, load, init, run, CPU: µs | memory | request, response, log: bytes
//! [error length, error]                               if ERROR
//! ```
//! Numbers without a width are LEB128. The checksum finds what a crash tore; it
//! is no protection against anybody who can write to the data folder.

use crate::model::ids::{FunctionId, InvocationId, RevisionNumber};
use crate::model::invocation::{Outcome, Receipt};

/// First bytes of each segment; the last digit is the version of the encoding.
pub(super) const SEGMENT_MAGIC: &[u8; 8] = b"WHITRCP1";
/// Longest error text that is kept, in bytes; the rest is cut.
pub const ERROR_BYTES_MAX: usize = 4096;

const HEADER_BYTES: usize = 8;
/// Above the largest payload that is ever written: a length above it is torn.
const PAYLOAD_BYTES_MAX: usize = 8192;
const ID_BYTES: usize = 16;
const FUNCTION_AT: usize = 20;

const COLD: u8 = 1;
const FUNCTION: u8 = 2;
const REVISION: u8 = 4;
const ERROR: u8 = 8;

/// The outcome's number on disk. Never reused for another.
fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::NoRoute => 1,
        Outcome::BadRequest => 2,
        Outcome::BodyTooLarge => 3,
        Outcome::TenantLimited => 4,
        Outcome::Overloaded => 5,
        Outcome::Timeout => 6,
        Outcome::CpuLimit => 7,
        Outcome::MemoryLimit => 8,
        Outcome::Trapped => 9,
        Outcome::NoResponse => 10,
        Outcome::OutputLimit => 11,
        Outcome::Recursion => 12,
        Outcome::ClientGone => 13,
        Outcome::HostError => 14,
    }
}

/// Appends one record.
pub(super) fn encode(receipt: &Receipt, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    buffer.extend_from_slice(&receipt.id.0.to_be_bytes());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(receipt.cold, COLD)
        | flag(receipt.function.is_some(), FUNCTION)
        | flag(receipt.revision.is_some(), REVISION)
        | flag(receipt.error.is_some(), ERROR);
    buffer.extend_from_slice(&[outcome_code(receipt.outcome), flags]);
    buffer.extend_from_slice(&receipt.status.to_le_bytes());
    if let Some(function) = &receipt.function {
        encode_function(function, buffer);
    }
    if let Some(revision) = receipt.revision {
        encode_number(revision.0.into(), buffer);
    }
    for number in [
        receipt.total_us,
        receipt.queue_us,
        receipt.load_us,
        receipt.init_us,
        receipt.run_us,
        receipt.cpu_us,
        receipt.memory_peak_bytes,
        receipt.request_bytes,
        receipt.response_bytes,
        receipt.log_bytes,
    ] {
        encode_number(number, buffer);
    }
    if let Some(error) = &receipt.error {
        let error = error.get(..error.floor_char_boundary(ERROR_BYTES_MAX)).unwrap_or_default();
        encode_number(u64::try_from(error.len()).unwrap_or_default(), buffer);
        buffer.extend_from_slice(error.as_bytes());
    }
    let Some((header, payload)) =
        buffer.get_mut(start..).and_then(|record| record.split_first_chunk_mut::<HEADER_BYTES>())
    else {
        return;
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(payload);
    *header = ((u64::from(checksum) << 32) | u64::from(length)).to_le_bytes();
}

/// A function as it is in a payload. Names are at most 63 bytes: they fit.
pub(super) fn encode_function(function: &FunctionId, buffer: &mut Vec<u8>) {
    for name in [function.tenant.as_str(), function.name.as_str()] {
        buffer.push(u8::try_from(name.len()).unwrap_or_default());
        buffer.extend_from_slice(name.as_bytes());
    }
}

fn encode_number(mut number: u64, buffer: &mut Vec<u8>) {
    while number >= 0x80 {
        buffer.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    buffer.push(u8::try_from(number).unwrap_or_default());
}

/// The whole records of a segment, in the order they were written; ends where
/// the segment ends, is torn or is sealed.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// None where `segment` is not one of this version.
    pub(super) fn of(segment: &'a [u8]) -> Option<Self> {
        let rest = segment.strip_prefix(SEGMENT_MAGIC)?;
        Some(Self { rest })
    }

    /// Bytes after the last whole record.
    pub(super) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (header, after) = self.rest.split_first_chunk::<HEADER_BYTES>()?;
        let header = u64::from_le_bytes(*header);
        let length = usize::try_from(header & u64::from(u32::MAX)).ok()?;
        if !(FUNCTION_AT..=PAYLOAD_BYTES_MAX).contains(&length) {
            return None;
        }
        let (payload, rest) = after.split_at_checked(length)?;
        if u64::from(crc32fast::hash(payload)) != header >> 32 {
            return None;
        }
        let id = InvocationId(u128::from_be_bytes(*payload.first_chunk::<ID_BYTES>()?));
        self.rest = rest;
        Some(Record { id, payload })
    }
}

/// One receipt, not decoded yet.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) id: InvocationId,
    payload: &'a [u8],
}

impl Record<'_> {
    /// Whether it ended so.
    pub(super) fn has_outcome(&self, outcome: Outcome) -> bool {
        self.payload.get(ID_BYTES) == Some(&outcome_code(outcome))
    }

    /// Whether it is of the function that [`encode_function`] made these bytes of.
    pub(super) fn has_function(&self, function: &[u8]) -> bool {
        self.payload.get(ID_BYTES + 1).is_some_and(|flags| flags & FUNCTION != 0)
            && self.payload.get(FUNCTION_AT..).is_some_and(|rest| rest.starts_with(function))
    }

    /// The receipt. None where it is not one that this version writes.
    pub(super) fn decode(&self) -> Option<Receipt> {
        let mut reader = Reader { rest: self.payload.get(ID_BYTES..)? };
        let [outcome, flags, status_low, status_high] = reader.array()?;
        let outcome = Outcome::ALL.into_iter().find(|known| outcome_code(*known) == outcome)?;
        let function = if flags & FUNCTION != 0 {
            let tenant = reader.name()?.parse().ok()?;
            Some(FunctionId { tenant, name: reader.name()?.parse().ok()? })
        } else {
            None
        };
        let revision = if flags & REVISION != 0 {
            Some(RevisionNumber(u32::try_from(reader.number()?).ok()?))
        } else {
            None
        };
        Some(Receipt {
            id: self.id,
            function,
            revision,
            outcome,
            status: u16::from_le_bytes([status_low, status_high]),
            cold: flags & COLD != 0,
            total_us: reader.number()?,
            queue_us: reader.number()?,
            load_us: reader.number()?,
            init_us: reader.number()?,
            run_us: reader.number()?,
            cpu_us: reader.number()?,
            memory_peak_bytes: reader.number()?,
            request_bytes: reader.number()?,
            response_bytes: reader.number()?,
            log_bytes: reader.number()?,
            error: if flags & ERROR != 0 {
                let length = usize::try_from(reader.number()?).ok()?;
                Some(reader.text(length)?.to_owned())
            } else {
                None
            },
        })
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn text(&mut self, length: usize) -> Option<&'a str> {
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        std::str::from_utf8(text).ok()
    }

    fn name(&mut self) -> Option<&'a str> {
        let [length] = self.array()?;
        self.text(length.into())
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::receipt;
    use super::*;

    fn segment(receipts: &[Receipt]) -> Vec<u8> {
        let mut bytes = SEGMENT_MAGIC.to_vec();
        for receipt in receipts {
            encode(receipt, &mut bytes);
        }
        bytes
    }

    #[test]
    fn receipts_round_trip() {
        let mut receipts: Vec<Receipt> = Outcome::ALL
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| receipt(index as u64, Some("hello"), outcome))
            .collect();
        receipts.push(receipt(90, None, Outcome::NoRoute));
        let mut largest = receipt(u64::MAX >> 16, Some(&"x".repeat(63)), Outcome::Trapped);
        largest.function.as_mut().unwrap().tenant = "y".repeat(63).parse().unwrap();
        for number in [
            &mut largest.total_us,
            &mut largest.queue_us,
            &mut largest.load_us,
            &mut largest.init_us,
            &mut largest.run_us,
            &mut largest.cpu_us,
            &mut largest.memory_peak_bytes,
            &mut largest.request_bytes,
            &mut largest.response_bytes,
            &mut largest.log_bytes,
        ] {
            *number = u64::MAX;
        }
        (largest.cold, largest.revision) = (true, Some(RevisionNumber(u32::MAX)));
        largest.error = Some("ü".repeat(ERROR_BYTES_MAX / 2));
        receipts.push(largest);
        let bytes = segment(&receipts);
        let mut records = Records::of(&bytes).unwrap();
        let decoded: Vec<Receipt> = records.by_ref().map(|found| found.decode().unwrap()).collect();
        assert_eq!(decoded, receipts);
        assert_eq!(records.rest_bytes(), 0);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let mut long = receipt(1, Some("hello"), Outcome::Trapped);
        long.error = Some(format!("x{}", "ü".repeat(ERROR_BYTES_MAX)));
        let bytes = segment(&[long]);
        let decoded = Records::of(&bytes).unwrap().next().unwrap().decode().unwrap();
        assert_eq!(decoded.error.unwrap().len(), ERROR_BYTES_MAX - 1);
    }

    #[test]
    fn whatever_is_torn_or_changed_ends_the_segment_there() {
        let receipts = [1, 2, 3].map(|ms| receipt(ms, Some("hello"), Outcome::Ok));
        let whole = segment(&receipts);
        let record_bytes = (whole.len() - SEGMENT_MAGIC.len()) / 3;
        for length in SEGMENT_MAGIC.len()..whole.len() {
            let records = Records::of(&whole[..length]).unwrap();
            assert_eq!(records.count(), (length - SEGMENT_MAGIC.len()) / record_bytes);
        }
        for changed in SEGMENT_MAGIC.len() + record_bytes..whole.len() - record_bytes {
            let mut bytes = whole.clone();
            bytes[changed] ^= 0x10;
            assert_eq!(Records::of(&bytes).unwrap().count(), 1, "byte {changed}");
        }
        let zeroed = [whole.as_slice(), &[0; 4096]].concat();
        assert_eq!(Records::of(&zeroed).unwrap().count(), 3);
        assert!(Records::of(b"WHITRCP9").is_none());
    }
}
