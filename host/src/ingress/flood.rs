//! Floods of HTTP/2 frames that ask for nothing.
//!
//! h2 bounds resets, continuations and the size of heads. Frames that are
//! answered at once or not at all (pings, settings, priorities, empty data) it
//! takes without end, and each costs more to handle than to send.

use std::io;
use std::time::{Duration, Instant};

/// Most such frames in [`PERIOD`]. Clients that measure the delay of a local
/// network by pings stay below it.
const FRAMES_MAX: u32 = 5000;
const PERIOD: Duration = Duration::from_secs(1);
/// Length (3), type, flags, stream (4): RFC 9113, 4.1.
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Flood {
    /// Bytes until the next frame's header.
    skip: usize,
    /// The beginning of a header that is not all there.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    frames: u32,
    since: Instant,
}

impl Flood {
    /// For a connection whose frames begin after so many bytes.
    pub(super) fn new(preface_bytes: usize) -> Self {
        Self {
            skip: preface_bytes,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            frames: 0,
            since: Instant::now(),
        }
    }

    /// Looks at what was read.
    ///
    /// # Errors
    /// When the client sends too many frames to no purpose.
    pub(super) fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = rest.get(skipped..).unwrap_or_default();
            let missing = self.header.get_mut(self.header_bytes..).unwrap_or_default();
            let taken = missing.len().min(rest.len());
            for (place, byte) in missing.iter_mut().zip(rest) {
                *place = *byte;
            }
            self.header_bytes += taken;
            rest = rest.get(taken..).unwrap_or_default();
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<()> {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let useful = match kind {
            DATA => self.skip > 0,
            HEADERS | CONTINUATION | WINDOW_UPDATE => true,
            _ => false,
        };
        if useful {
            return Ok(());
        }
        self.frames += 1;
        if self.frames < FRAMES_MAX {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.since) < PERIOD {
            return Err(io::Error::other("a flood of frames that ask for nothing"));
        }
        (self.frames, self.since) = (0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        [&header[..], payload].concat()
    }

    #[test]
    fn floods_are_told_from_traffic_in_pieces_of_any_size() {
        let useful = [frame(DATA, b"abc"), frame(HEADERS, &[6; 40]), frame(WINDOW_UPDATE, &[0; 4])];
        let useless = [frame(6, &[0; 8]), frame(4, &[]), frame(DATA, &[]), frame(2, &[0; 5])];
        for piece in [1, 5, 9, 100, 10_000] {
            for kind in &useful {
                let mut flood = Flood::new(3);
                let sent = [b"PRI".to_vec(), kind.repeat(10_000)].concat();
                assert!(sent.chunks(piece).all(|piece| flood.check(piece).is_ok()), "{kind:?}");
            }
            for kind in &useless {
                let mut flood = Flood::new(3);
                let sent = [b"PRI".to_vec(), kind.repeat(10_000)].concat();
                assert!(sent.chunks(piece).any(|piece| flood.check(piece).is_err()), "{kind:?}");
            }
        }
    }
}
