//! How an encoded image is built, before anything of it is decoded: what a decoder would take its time for, and no bound
//! on its pixels shows.

/// Number of scans of a JPEG (ITU-T T.81, B.1.1 and B.2.1): a baseline image has one to four, a progressive one some more,
/// and each goes over all blocks of the image, whatever its own size. Counts no further than `most` + 1. Bytes that are
/// no JPEG have none.
pub fn jpeg_scans(bytes: &[u8], most: u32) -> u32 {
    const SOI: u8 = 0xd8;
    const EOI: u8 = 0xd9;
    const SOS: u8 = 0xda;
    let mut scans = 0;
    if !bytes.starts_with(&[0xff, SOI]) {
        return 0;
    }
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            EOI => break,
            SOI | 0x01 | 0xd0..=0xd7 => continue, // alone, without a length
            SOS => scans += 1,
            _ => {}
        }
        if scans > most {
            break;
        }
        // The length counts itself. What follows a scan's header is data, and the next marker ends it.
        let Some(&[high, low]) = bytes.get(at..at + 2) else { break };
        at += usize::from(u16::from_be_bytes([high, low])).max(2);
    }
    scans
}

/// The next marker at or after `at`, which is then behind it. A 0xff that is data is followed by a zero, and one that
/// fills by another.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let start = rest.iter().position(|byte| *byte == 0xff)?;
        let code = *rest.get(start + 1)?;
        *at += start + 1;
        if code != 0xff {
            *at += 1;
            if code != 0 {
                return Some(code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        [&[0xff, marker], &length[..], body].concat()
    }

    #[test]
    fn scans_are_counted_and_nothing_that_only_looks_like_one() {
        let scan =
            [&segment(0xda, &[1, 1, 0, 0, 63, 0])[..], &[9, 0xff, 0, 0xff, 0xd3, 7, 0xff, 0xff]].concat();
        let decoy = segment(0xe1, &scan); // a scan inside of a segment of an application
        let of = |n: usize| [&[0xff, 0xd8][..], &decoy, &scan.repeat(n), &[0xff, 0xd9], &scan].concat();
        for n in [0, 1, 4, 64, 80] {
            assert_eq!(jpeg_scans(&of(n), 1_000), u32::try_from(n).unwrap());
        }
        assert_eq!(jpeg_scans(&of(80), 64), 65, "and no further");
        // A length of zero or one moves on all the same; an end anywhere is an end.
        assert_eq!(jpeg_scans(&[0xff, 0xd8, 0xff, 0xda, 0, 0, 0xff, 0xda, 0, 1], 9), 2);
        let whole = of(3);
        for end in 0..whole.len() {
            assert!(jpeg_scans(&whole[..end], 9) <= 3);
        }
        assert_eq!(jpeg_scans(b"\x89PNG\xff\xda\xff\xda", 9), 0);
    }

    #[test]
    fn an_image_of_a_real_encoder_has_one_scan() {
        let mut out = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(64, 64).write_to(&mut out, image::ImageFormat::Jpeg).unwrap();
        assert_eq!(jpeg_scans(out.get_ref(), 64), 1);
    }
}
