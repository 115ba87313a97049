//! `POST` a JPEG or PNG, get a smaller one back.

mod thumbnail;

use whit_sdk::http::{Method, Request, Response, StatusCode, header};
use whit_sdk::{Body, Error, IntoResponse, RequestExt, Result, config_or};

use crate::thumbnail::{Format, Refusal, Size, Thumbnail};

/// The largest upload. The host has a limit of its own, 10 MiB unless it was told otherwise.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
const SIDE_DEFAULT: u32 = 256;
const SIDE_MAX: u32 = 2048;

const USAGE: &str = "\
POST a JPEG or PNG image to get a smaller one back.

  ?width=..   the most pixels it may be wide (1 to 2048)
  ?height=..  the most pixels it may be high (1 to 2048)
  ?format=..  jpeg or png; as the original where it is left out

The shape of the image is kept, and it is never made larger. Without a width or a height, it is made
to fit 256 x 256.

  curl --data-binary @photo.jpg 'URL?width=320' --output thumbnail.jpg
";

#[whit_sdk::handler]
fn handle(mut request: Request<Body>) -> Result<Response<Body>> {
    match *request.method() {
        Method::POST => {}
        Method::GET | Method::HEAD => return Ok(USAGE.into_response()),
        _ => return Err(Error::method_not_allowed("POST an image; GET explains how")),
    }
    let size = size(&request)?;
    let format = request.query_as::<Format>("format")?;
    let quality = config_or("QUALITY", 80_u8)?.clamp(1, 100);

    let original = request.body_mut().read_all(BODY_BYTES_MAX)?;
    let thumbnail = thumbnail::make(&original, size, format, quality).map_err(to_error)?;
    to_response(thumbnail)
}

fn size(request: &Request<Body>) -> Result<Size> {
    let (width, height) = (side(request, "width")?, side(request, "height")?);
    // Who gives one side wants the other to follow from it.
    let other = match (width, height) {
        (None, None) => SIDE_DEFAULT,
        _ => SIDE_MAX,
    };
    Ok(Size {
        width: width.unwrap_or(other),
        height: height.unwrap_or(other),
    })
}

fn side(request: &Request<Body>, name: &str) -> Result<Option<u32>> {
    match request.query_as::<u32>(name)? {
        Some(side) if !(1..=SIDE_MAX).contains(&side) => Err(Error::bad_request(format!(
            "`{name}` must be between 1 and {SIDE_MAX}, not {side}"
        ))),
        side => Ok(side),
    }
}

fn to_response(thumbnail: Thumbnail) -> Result<Response<Body>> {
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, thumbnail.format.media_type())
        .header("X-Width", thumbnail.width)
        .header("X-Height", thumbnail.height)
        .body(Body::from(thumbnail.bytes))?)
}

fn to_error(refusal: Refusal) -> Error {
    let status = match refusal {
        Refusal::Empty => StatusCode::BAD_REQUEST,
        Refusal::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Broken(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Unwritable(error) => return error.into(),
    };
    Error::new(status, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat};

    use super::*;

    fn image(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        DynamicImage::new_rgb8(width, height)
            .write_to(&mut Cursor::new(&mut bytes), format)
            .unwrap();
        bytes
    }

    fn post(query: &str, body: impl Into<Body>) -> Response<Body> {
        let uri = format!("/{query}");
        handle(Request::post(uri).body(body.into()).unwrap()).into_response()
    }

    fn answer(query: &str, body: Vec<u8>) -> (u16, String, u32, u32) {
        let response = post(query, body);
        let status = response.status().as_u16();
        let media_type = response.headers()["content-type"].to_str().unwrap().into();
        let bytes = response.into_body().read_all(1 << 20).unwrap();
        let (width, height) =
            image::load_from_memory(&bytes).map_or((0, 0), |image| (image.width(), image.height()));
        (status, media_type, width, height)
    }

    #[test]
    fn the_shape_is_kept() {
        let jpeg = || image(1200, 800, ImageFormat::Jpeg);
        let made = |query| answer(query, jpeg());
        assert_eq!(made(""), (200, "image/jpeg".into(), 256, 171));
        assert_eq!(made("?width=300"), (200, "image/jpeg".into(), 300, 200));
        assert_eq!(
            made("?height=100&format=png"),
            (200, "image/png".into(), 150, 100)
        );
        // Never enlarged.
        assert_eq!(made("?width=2000"), (200, "image/jpeg".into(), 1200, 800));
    }

    #[test]
    fn extreme_shapes_keep_one_pixel() {
        let line = image(3000, 1, ImageFormat::Png);
        assert_eq!(answer("", line), (200, "image/png".into(), 256, 1));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let refused = |query, body: &[u8]| post(query, body).status().as_u16();
        assert_eq!(refused("", b""), 400);
        assert_eq!(refused("", b"GIF89a\x01\0\x01\0\0\0\0;"), 415);
        assert_eq!(refused("", b"just some text"), 415);
        assert_eq!(refused("?width=0", b""), 400);
        assert_eq!(refused("?width=2049", b""), 400);
        assert_eq!(refused("?format=webp", b""), 400);
        assert_eq!(refused("", &vec![0; BODY_BYTES_MAX + 1]), 413);
    }

    #[test]
    fn broken_images_are_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let whole = image(640, 480, format);
            for length in [4, 12, 40, whole.len() / 2, whole.len() - 20] {
                let status = post("", &whole[..length]).status().as_u16();
                assert!(
                    [415, 422].contains(&status),
                    "{format:?} cut to {length}: {status}"
                );
            }
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_by_its_header() {
        // 50 000 x 50 000 pixels of 8-bit grey, as the first 33 bytes of a PNG claim it.
        let mut header = image(1, 1, ImageFormat::Png);
        header[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        let checksum = crc32(&header[12..29]);
        header[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(post("", header).status(), 413);
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn usage_is_explained() {
        let response = handle(Request::get("/").body(Body::empty()).unwrap()).unwrap();
        assert!(response.into_body().text(10_000).unwrap().contains("POST"));
        let request = Request::delete("/").body(Body::empty()).unwrap();
        assert_eq!(handle(request).unwrap_err().status(), 405);
    }
}
