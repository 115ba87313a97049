//! From the bytes of an image to those of a smaller one. Nothing here knows of HTTP.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::error::ImageError;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits, Rgb};

/// The most memory that the pixels of an original may take: 40 million of them in 8-bit colour. A
/// few kilobytes of PNG can claim to be thousands of times that.
const PIXEL_BYTES_MAX: u64 = 120_000_000;

/// What a decoder may need beside the pixels.
const DECODER_BYTES_MAX: u64 = 3 * PIXEL_BYTES_MAX;

#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
        }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "jpeg" | "jpg" => Ok(Format::Jpeg),
            "png" => Ok(Format::Png),
            _ => Err("it must be jpeg or png"),
        }
    }
}

pub struct Thumbnail {
    pub bytes: Vec<u8>,
    pub format: Format,
    pub width: u32,
    pub height: u32,
}

/// Why there is no thumbnail.
#[derive(Debug)]
pub enum Refusal {
    Empty,
    Unsupported,
    TooLarge { width: u32, height: u32 },
    Broken(String),
    Unwritable(ImageError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Empty => formatter.write_str("the body is empty: send an image"),
            Refusal::Unsupported => formatter.write_str("this is neither a JPEG nor a PNG image"),
            Refusal::TooLarge { width, height } => write!(
                formatter,
                "the image is too large: {width} x {height} pixels need more than {} MB",
                PIXEL_BYTES_MAX / 1_000_000
            ),
            Refusal::Broken(reason) => write!(formatter, "the image is broken: {reason}"),
            Refusal::Unwritable(error) => write!(formatter, "the thumbnail: {error}"),
        }
    }
}

/// Makes an image fit a size. The original decides the format where none is asked for.
pub fn make(
    original: &[u8],
    size: Size,
    format: Option<Format>,
    quality: u8,
) -> Result<Thumbnail, Refusal> {
    let Original {
        image,
        format: original_format,
        orientation,
        colour_profile,
    } = decode(original)?;
    let mut image = fit(image, upright(size, orientation));
    // A photograph is often stored as the sensor saw it, with a note on how it was held. Turning
    // the small image is cheaper than turning the large one.
    image.apply_orientation(orientation);

    let format = format.unwrap_or(original_format);
    let bytes = encode(&image, format, quality, colour_profile).map_err(Refusal::Unwritable)?;
    Ok(Thumbnail {
        bytes,
        format,
        width: image.width(),
        height: image.height(),
    })
}

struct Original {
    image: DynamicImage,
    format: Format,
    orientation: Orientation,
    colour_profile: Option<Vec<u8>>,
}

fn decode(bytes: &[u8]) -> Result<Original, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    let (image_format, format) = match image::guess_format(bytes) {
        Ok(format @ ImageFormat::Jpeg) => (format, Format::Jpeg),
        Ok(format @ ImageFormat::Png) => (format, Format::Png),
        _ => return Err(Refusal::Unsupported),
    };
    if format == Format::Jpeg && !is_whole_jpeg(bytes) {
        return Err(Refusal::Broken("it ends before its end".to_string()));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image_format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    // Only the header was read so far: nothing was allocated for the pixels yet.
    if decoder.total_bytes() > PIXEL_BYTES_MAX {
        return Err(Refusal::TooLarge { width, height });
    }
    // A photograph without its notes is still a photograph.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let colour_profile = decoder.icc_profile().unwrap_or_default();
    let image = DynamicImage::from_decoder(decoder).map_err(|error| match error {
        ImageError::Limits(_) => Refusal::TooLarge { width, height },
        error => broken(error),
    })?;
    Ok(Original {
        image,
        format,
        orientation,
        colour_profile,
    })
}

/// Whether a JPEG has an end. The decoder does not mind: it leaves the rest grey, as a browser does
/// while a photograph arrives. A thumbnail of half an upload helps nobody.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut position = 0;
    // Segment by segment to the pixels, since a preview inside a segment has an end of its own.
    loop {
        match bytes.get(position..) {
            Some([0xff, 0xda, ..]) => break,
            Some([0xff, 0x01 | 0xd0..=0xd9, ..]) => position += 2,
            Some([0xff, 0x00..=0xfe, high, low, ..]) => {
                position += 2 + usize::from(u16::from_be_bytes([*high, *low]));
            }
            Some([_, _, ..]) => position += 1,
            _ => return false,
        }
    }
    bytes[position..]
        .windows(2)
        .any(|pair| pair == [0xff, 0xd9])
}

fn broken(error: ImageError) -> Refusal {
    Refusal::Broken(error.to_string())
}

/// The size before the image is turned.
fn upright(size: Size, orientation: Orientation) -> Size {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => Size {
            width: size.height,
            height: size.width,
        },
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => size,
    }
}

/// Makes the image smaller until it fits. It is never made larger.
fn fit(image: DynamicImage, size: Size) -> DynamicImage {
    let Size { width, height } = size;
    if image.width() <= width && image.height() <= height {
        return image;
    }
    // The good filter looks at every pixel of a large photograph several times. Averaging it
    // roughly down to twice the size first costs no quality that could be seen, and is much faster.
    let image = if image.width() > 4 * width || image.height() > 4 * height {
        image.thumbnail(2 * width, 2 * height)
    } else {
        image
    };
    image.resize(width, height, FilterType::CatmullRom)
}

/// Everything but the colours is left behind: the place where a photograph was taken, too.
fn encode(
    image: &DynamicImage,
    format: Format,
    quality: u8,
    colour_profile: Option<Vec<u8>>,
) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    // A profile for other channels than these would give wrong colours.
    let profile = colour_profile
        .filter(|profile| profile.get(16..20) == Some(b"RGB ") && image.color().has_color());
    match format {
        Format::Jpeg => {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            set_profile(&mut encoder, profile);
            on_white(image).write_with_encoder(encoder)?;
        }
        Format::Png => {
            let mut encoder = PngEncoder::new(&mut bytes);
            set_profile(&mut encoder, profile);
            image.write_with_encoder(encoder)?;
        }
    }
    Ok(bytes)
}

fn set_profile(encoder: &mut impl ImageEncoder, profile: Option<Vec<u8>>) {
    if let Some(profile) = profile {
        // Without it, the colours are only a little off.
        let _ = encoder.set_icc_profile(profile);
    }
}

/// JPEG has no transparency. What shows through is white, as paper is.
fn on_white(image: &DynamicImage) -> DynamicImage {
    if !image.color().has_alpha() {
        return DynamicImage::from(image.to_rgb8());
    }
    let pixels = image.to_rgba8();
    DynamicImage::from(image::RgbImage::from_fn(
        pixels.width(),
        pixels.height(),
        |x, y| {
            let [red, green, blue, alpha] = pixels.get_pixel(x, y).0.map(u32::from);
            let blend = |colour: u32| ((colour * alpha + 255 * (255 - alpha)) / 255) as u8;
            Rgb([blend(red), blend(green), blend(blue)])
        },
    ))
}
