//! Draws the sample images, so that their licence is ours: `cargo run --release --example make-samples`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage, imageops};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("samples");
    fs::create_dir_all(folder)?;

    let landscape = landscape(1200, 800);
    let photograph = jpeg(&landscape, None)?;
    fs::write(folder.join("landscape.jpg"), &photograph)?;

    // As a phone stores it that was held upright: turned, with a note to turn it back.
    let turned = imageops::rotate270(&landscape);
    fs::write(folder.join("turned.jpg"), jpeg(&turned, Some(6))?)?;

    let mut badge_png = Vec::new();
    badge(400).write_with_encoder(PngEncoder::new(&mut badge_png))?;
    fs::write(folder.join("badge.png"), &badge_png)?;

    fs::write(
        folder.join("broken.jpg"),
        &photograph[..photograph.len() / 3],
    )?;
    bomb(&folder.join("bomb.png"))
}

/// Hills under an evening sky.
fn landscape(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let sun = ((x - 0.7).powi(2) * 2.25 + (y - 0.38).powi(2)).sqrt();
        if sun < 0.06 {
            return Rgb([255, 244, 214]);
        }
        for hill in (0..5).rev() {
            let hill = hill as f32;
            let ridge = 0.5
                + 0.09 * hill
                + 0.05 * (x * (5.0 + hill) + hill * 1.7).sin()
                + 0.012 * (x * (31.0 - 3.0 * hill) + hill).sin();
            if y > ridge {
                let shade = 1.0 - 0.17 * hill;
                return Rgb([110.0, 120.0, 160.0].map(|colour| (colour * shade) as u8));
            }
        }
        let glow = (0.5 - sun).max(0.0);
        Rgb([
            (90.0 + 130.0 * y + 200.0 * glow).min(255.0) as u8,
            (120.0 + 60.0 * y + 120.0 * glow).min(255.0) as u8,
            (190.0 - 40.0 * y + 20.0 * glow).min(255.0) as u8,
        ])
    })
}

/// A disc with a soft edge on a transparent ground.
fn badge(side: u32) -> RgbaImage {
    let middle = side as f32 / 2.0;
    RgbaImage::from_fn(side, side, |x, y| {
        let distance = (x as f32 - middle).hypot(y as f32 - middle);
        let alpha = ((middle - distance) * 16.0).clamp(0.0, 255.0) as u8;
        let ring = distance > 0.7 * middle && distance < 0.8 * middle;
        let [red, green, blue] = if ring {
            [255, 255, 255]
        } else {
            [101, 79, 240]
        };
        Rgba([red, green, blue, alpha])
    })
}

fn jpeg(image: &RgbImage, orientation: Option<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 85);
    if let Some(orientation) = orientation {
        // The smallest note there is: one folder with one entry, tag 0x0112.
        let mut note = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
        note[19] = orientation;
        encoder.set_exif_metadata(note)?;
    }
    image.write_with_encoder(encoder)?;
    Ok(bytes)
}

/// 400 million pixels in 90 kilobytes.
fn bomb(path: &Path) -> Result<(), Box<dyn Error>> {
    const SIDE: u32 = 20_000;
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), SIDE, SIDE);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    let mut pixels = writer.stream_writer()?;
    let row = vec![0; SIDE.div_ceil(8) as usize];
    for _ in 0..SIDE {
        pixels.write_all(&row)?;
    }
    pixels.finish()?;
    Ok(())
}
