use http_support::wire::{ChunkError, ChunkedLimits, ChunkedScanner, Piece};
use proptest::prelude::*;

/// Data, bytes passed on, trailers, and what is left, of a body read in pieces of the given lengths.
#[derive(Debug, PartialEq)]
struct Read {
    data: Vec<u8>,
    verbatim: Vec<u8>,
    trailers: Vec<u8>,
    rest: Vec<u8>,
    done: bool,
}

fn read(body: &[u8], cuts: &[usize]) -> Result<Read, ChunkError> {
    let limits = ChunkedLimits { extension_bytes_max: 40, trailer_bytes_max: 80 };
    let (mut reader, mut passer) = (ChunkedScanner::new(limits), ChunkedScanner::new(limits));
    let (mut data, mut verbatim, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces(body, cuts) {
        let mut input = piece;
        while let Some(Piece::Data(part)) = reader.next(&mut input)? {
            data.extend_from_slice(part);
        }
        rest.extend_from_slice(input);
        let mut input = piece;
        while !input.is_empty() && !passer.is_done() {
            verbatim.extend_from_slice(passer.verbatim(&mut input)?.bytes);
        }
    }
    assert_eq!(reader.is_done(), passer.is_done());
    assert_eq!(reader.trailers(), passer.trailers());
    Ok(Read { data, verbatim, trailers: reader.trailers().to_vec(), rest, done: reader.is_done() })
}

fn pieces<'a>(body: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = body;
    let mut out = Vec::new();
    for &cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        out.push(piece);
        rest = after;
    }
    out.push(rest);
    out
}

#[test]
fn data_is_found_and_extensions_are_left_out() {
    let body = b"5;a=b\r\nhello\r\n00A;x=\"y;z\"\r\n0123456789\r\n0;last\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nGET";
    let read = read(body, &[]).unwrap();
    assert_eq!(read.data, b"hello0123456789");
    assert_eq!(read.verbatim, b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n");
    assert_eq!(read.trailers, b"X-Sum: 1\r\n");
    assert_eq!((read.rest.as_slice(), read.done), (&b"GET"[..], true));
}

#[test]
fn what_is_not_exactly_a_chunk_is_refused() {
    let cases: &[(&[u8], ChunkError)] = &[
        (b"\r\n", ChunkError::Size),
        (b" 5\r\n", ChunkError::Size),
        (b"5 \r\n", ChunkError::Size),
        (b"5 ;a\r\n", ChunkError::Size),
        (b"+5\r\n", ChunkError::Size),
        (b"-5\r\n", ChunkError::Size),
        (b"0x5\r\n", ChunkError::Size),
        (b"5_0\r\n", ChunkError::Size),
        (b";a\r\n", ChunkError::Size),
        (b"8000000000000000\r\n", ChunkError::Size),
        (b"00000000000000005\r\n", ChunkError::Size),
        (b"5\nhello", ChunkError::Size),
        (b"5\rhello", ChunkError::LineEnd),
        (b"5\r\nhello\n", ChunkError::LineEnd),
        (b"5\r\nhello!\r\n", ChunkError::LineEnd),
        (b"5\r\nhell\r\n0\r\n\r\n", ChunkError::LineEnd),
        (b"5\r\nhello\r0\r\n\r\n", ChunkError::LineEnd),
        (b"5;a\nb\r\n", ChunkError::Extension),
        (b"5;a\rb\r\n", ChunkError::LineEnd),
        (b"5;a\0\r\n", ChunkError::Extension),
        (b"5;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", ChunkError::Extension),
        (b"0\r\nX y: z\r\n\r\n", ChunkError::Trailer),
        (b"0\r\nX: y\n\r\n", ChunkError::Trailer),
        (b"0\r\n folded\r\n\r\n", ChunkError::Trailer),
        (b"0\r\n\n", ChunkError::Trailer),
        (b"0\r\nX: a\rb\r\n\r\n", ChunkError::Trailer),
        (b"0\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ChunkError::Trailer),
    ];
    for (body, error) in cases {
        assert_eq!(read(body, &[]), Err(*error), "{}", body.escape_ascii());
    }
}

#[test]
fn the_largest_size_is_read() {
    assert!(!read(b"7fffffffffffffff\r\nx", &[]).unwrap().done);
}

/// RFC 9110 section 6.5.1.
#[test]
fn trailers_that_would_frame_route_or_authenticate_are_dropped() {
    let body = b"0\r\nHost: x\r\nTransfer-Encoding: x\r\ncookie: x\r\nX-Forwarded-For: x\r\nX_Y: 1\r\nX-Authenticated-User: root\r\nX.Authenticated.User: root\r\nx-http-method-override: DELETE\r\nX-Original-URL: /admin\r\nX.Forwarded.For: x\r\nServer-Timing: x\r\n\r\n";
    assert_eq!(read(body, &[]), Err(ChunkError::Trailer), "beyond the bound of this test");
    let mut scanner = ChunkedScanner::new(ChunkedLimits::default());
    assert_eq!(scanner.next(&mut &body[..]), Ok(Some(Piece::End)));
    assert_eq!(scanner.trailers(), b"Server-Timing: x\r\n");
}

fn chunk() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 1..40), "(;[a-z]{0,3})?", any::<bool>()).prop_map(
        |(data, extension, zeros)| {
            let size = if zeros { format!("{:04X}", data.len()) } else { format!("{:x}", data.len()) };
            [size.as_bytes(), extension.as_bytes(), b"\r\n", &data, b"\r\n"].concat()
        },
    )
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same_result(
        chunks in prop::collection::vec(chunk(), 0..8),
        tail in prop::sample::select(vec!["0\r\n\r\n", "0\r\nA: b\r\n\r\nGET /", "000;x\r\nHost: b\r\nC: d\r\n\r\n", "0\r\n", "5\r\nab", "5\r\nabcdefg", "zz\r\n", "1;\n", "0\r\n\n"]),
        cuts in prop::collection::vec(0usize..9, 0..60),
    ) {
        let body = [chunks.concat().as_slice(), tail.as_bytes()].concat();
        let whole = read(&body, &[]);
        prop_assert_eq!(&read(&body, &cuts), &whole);
        prop_assert_eq!(&read(&body, &vec![1; body.len()]), &whole);
    }

    #[test]
    fn what_is_passed_on_reads_as_the_same_data(chunks in prop::collection::vec(chunk(), 0..8), cuts in prop::collection::vec(0usize..30, 0..10)) {
        let body = [chunks.concat().as_slice(), b"0\r\nA: b\r\n\r\n"].concat();
        let first = read(&body, &cuts).unwrap();
        let passed = [first.verbatim.as_slice(), &first.trailers, b"\r\n"].concat();
        let second = read(&passed, &[]).unwrap();
        prop_assert!(second.done);
        prop_assert_eq!((second.data, second.trailers), (first.data, first.trailers));
    }

    #[test]
    fn random_bytes_end_in_a_refusal_or_not_at_all(body in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0usize..9, 0..40)) {
        prop_assert_eq!(read(&body, &cuts), read(&body, &[]));
    }
}
