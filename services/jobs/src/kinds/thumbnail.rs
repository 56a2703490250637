//! `thumbnail` {image: base64 or path, width, height, format?} → {content_type, image: base64, width, height}: the image
//! made to fit into width × height, its proportions kept, never enlarged. PNG and JPEG.
//!
//! A decoder cannot be interrupted, and half a megabyte may keep it busy for minutes. So it runs in a helper, which is
//! killed when the time is over, and what can be known beforehand (sides, bytes of all pixels, scans) is bounded. An image
//! of several frames counts as its first.

use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{image_structure::jpeg_scans, paths::Roots};
use crate::{
    config,
    handler::{Failure, Handler, JobContext, Running},
    helper::{Pool, Work},
};

/// Longest side of what comes out.
const SIDE_OUT_MAX: u32 = 4_096;

/// See the module.
pub struct Thumbnail {
    limits: config::Thumbnail,
    helpers: Arc<Pool>,
}

/// What a job asks for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    image: Option<String>,
    path: Option<String>,
    width: u32,
    height: u32,
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Png,
    Jpeg,
}

impl Thumbnail {
    pub(crate) fn new(limits: config::Thumbnail, helpers: Arc<Pool>) -> Self {
        Self { limits, helpers }
    }
}

impl Handler for Thumbnail {
    fn run(&self, job: JobContext) -> Running {
        let (limits, helpers) = (self.limits.clone(), self.helpers.clone());
        Box::pin(async move {
            let payload = job.payload()?;
            helpers.run(&job, Work::Thumbnail { payload, limits }).await
        })
    }
}

/// Makes it, for as long as that takes.
pub(crate) fn make(payload: &Payload, limits: &config::Thumbnail, roots: &Roots) -> Result<Value, Failure> {
    thumbnail(payload, limits, &input(payload, limits, roots)?)
}

/// `image` is a path if it begins as an allowed root does, and base64 otherwise. Base64 may begin with a slash (JPEG
/// does), so the slash alone says nothing.
fn input(payload: &Payload, limits: &config::Thumbnail, roots: &Roots) -> Result<Vec<u8>, Failure> {
    let (path, base64) = match (&payload.path, &payload.image) {
        (Some(path), None) => (path, None),
        (None, Some(image)) if roots.claims(image) => (image, None),
        (None, Some(image)) => (image, Some(image)),
        _ => return Err(Failure::Refused("payload: give either `image` or `path`".to_owned())),
    };
    if let Some(text) = base64 {
        return STANDARD
            .decode(text)
            .map_err(|e| Failure::Refused(format!("payload: image is not base64: {e}")));
    }
    let mut bytes = Vec::new();
    let mut file = roots.read(path)?.take(limits.input_bytes_max + 1);
    file.read_to_end(&mut bytes).map_err(|e| Failure::Failed(format!("{path}: {e}")))?;
    if bytes.len() as u64 > limits.input_bytes_max {
        return Err(Failure::Refused(format!("{path} has more than {} bytes", limits.input_bytes_max)));
    }
    Ok(bytes)
}

fn thumbnail(payload: &Payload, config: &config::Thumbnail, input: &[u8]) -> Result<Value, Failure> {
    let sides = 1..=SIDE_OUT_MAX;
    if !sides.contains(&payload.width) || !sides.contains(&payload.height) {
        return Err(Failure::Refused(format!("payload: width and height are 1 to {SIDE_OUT_MAX}")));
    }
    let mut reader = ImageReader::new(Cursor::new(input)).with_guessed_format().map_err(Failure::refused)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(config.side_max);
    limits.max_image_height = Some(config.side_max);
    limits.max_alloc = Some(config.decode_bytes_max);
    reader.limits(limits);
    let format = match (payload.format, reader.format()) {
        (Some(Format::Png), _) | (None, Some(ImageFormat::Png)) => ImageFormat::Png,
        (Some(Format::Jpeg), _) | (None, Some(ImageFormat::Jpeg)) => ImageFormat::Jpeg,
        _ => return Err(Failure::Refused("the image is neither PNG nor JPEG".to_owned())),
    };
    if reader.format() == Some(ImageFormat::Jpeg) && jpeg_scans(input, config.scans_max) > config.scans_max {
        return Err(Failure::Refused(format!("the image has more than {} scans", config.scans_max)));
    }
    let image = reader.decode().map_err(Failure::refused)?;
    let fits = image.width() <= payload.width && image.height() <= payload.height;
    let small = if fits { image } else { image.thumbnail(payload.width, payload.height) };
    let (width, height) = (small.width(), small.height());
    let mut out = Cursor::new(Vec::new());
    // JPEG knows neither transparency nor 16 bits a channel.
    let small = if format == ImageFormat::Jpeg { small.into_rgb8().into() } else { small };
    small.write_to(&mut out, format).map_err(Failure::failed)?;
    let image = STANDARD.encode(out.into_inner());
    Ok(json!({"content_type": format.to_mime_type(), "image": image, "width": width, "height": height}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image::RgbaImage::new(width, height).write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    fn run(payload: Value, config: &config::Thumbnail) -> Result<Value, Failure> {
        let payload: Payload = serde_json::from_value(payload).map_err(Failure::refused)?;
        let roots = Roots::open(&[]).unwrap();
        make(&payload, config, &roots)
    }

    #[test]
    fn fits_into_the_box_keeps_proportions_and_never_enlarges() {
        let config = config::Thumbnail::default();
        let image = STANDARD.encode(png(200, 100));
        let size = |w, h, format: &str| {
            let out =
                run(json!({"image": image, "width": w, "height": h, "format": format}), &config).unwrap();
            let bytes = STANDARD.decode(out["image"].as_str().unwrap()).unwrap();
            let decoded = image::load_from_memory(&bytes).unwrap();
            assert_eq!(out["content_type"], format!("image/{format}"));
            assert_eq!(
                (out["width"].as_u64(), out["height"].as_u64()),
                (Some(decoded.width().into()), Some(decoded.height().into()))
            );
            (decoded.width(), decoded.height())
        };
        assert_eq!(size(50, 50, "png"), (50, 25));
        assert_eq!(size(50, 50, "jpeg"), (50, 25));
        assert_eq!(size(1_000, 1_000, "png"), (200, 100));
    }

    #[test]
    fn bad_images_and_sizes_are_refused() {
        let config = config::Thumbnail { side_max: 100, decode_bytes_max: 1 << 20, ..Default::default() };
        let image = |bytes: Vec<u8>| STANDARD.encode(bytes);
        for payload in [
            json!({"image": image(png(101, 1)), "width": 5, "height": 5}),
            json!({"image": image(b"GIF89a".to_vec()), "width": 5, "height": 5}),
            json!({"image": image(png(9, 9)[..40].to_vec()), "width": 5, "height": 5}),
            json!({"image": "%%", "width": 5, "height": 5}),
            json!({"image": image(png(9, 9)), "width": 0, "height": 5}),
            json!({"image": image(png(9, 9)), "width": 5, "height": 5_000}),
            json!({"image": image(png(9, 9)), "path": "/x", "width": 5, "height": 5}),
            json!({"width": 5, "height": 5}),
            json!({"image": image(png(9, 9)), "width": 5, "height": 5, "format": "gif"}),
        ] {
            assert!(matches!(run(payload.clone(), &config), Err(Failure::Refused(_))), "{payload}");
        }
    }
}
