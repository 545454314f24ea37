package rows

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/transform"
)

// File is an opened file, as text in UTF-8 without a byte order mark.
type File struct {
	*bufio.Reader
	// Again reports whether the file can be read twice: a pipe cannot.
	Again bool

	closers []io.Closer
}

// Open opens a file, or standard input for "-". Once ctx ends, a file that
// cannot be read twice ends with ErrStopped, after what was taken from it.
func Open(ctx context.Context, name string, stdin io.Reader, encoding string) (*File, error) {
	in, f := stdin, &File{}
	if name != "-" {
		file, err := openFile(ctx, name)
		if err != nil {
			return nil, err
		}
		f.closers = append(f.closers, file)
		if f.Again, err = readableTwice(file); err != nil {
			f.Close()
			return nil, &FileError{0, err}
		}
		in = file
	}
	if !f.Again {
		pipe := Interruptible(ctx, in)
		f.closers = append(f.closers, pipe)
		in = pipe
	}
	text, err := NewText(in, encoding)
	if err != nil {
		f.Close()
		return nil, err
	}
	f.Reader = text
	return f, nil
}

// openFile opens a file. A pipe with a name waits for its writer, but not
// longer than ctx.
func openFile(ctx context.Context, name string) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		file, err := os.Open(name)
		done <- opened{file, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, &FileError{0, o.err}
		}
		return o.file, nil
	case <-ctx.Done():
		return nil, ErrStopped
	}
}

// readableTwice reports whether a file is one that stays.
func readableTwice(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder: give one file", Show(file.Name()))
	}
	return err == nil && info.Mode().IsRegular(), err
}

// Close closes the file.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ErrStopped is returned where a pipe was still open when it was to be read no
// longer.
var ErrStopped = errors.New("stopped before the end")

// bufferSize is how far a text is looked into before it is read.
const bufferSize = 64 << 10

// NewText is a file's bytes as UTF-8 text: unpacked, decoded, and without its
// byte order mark. What is not in the encoding stays in it as bytes that are
// not UTF-8, for the rows that have them to be refused.
func NewText(in io.Reader, encoding string) (*bufio.Reader, error) {
	decoder, known := decoders[encoding]
	if !known {
		return nil, optionError("--encoding %s: it is one of %s", Show(encoding), strings.Join(Encodings, ", "))
	}
	raw := bufio.NewReaderSize(in, bufferSize)
	if form := formOf(raw); form == "gzip" {
		unpacked, err := gzip.NewReader(raw)
		if err != nil {
			return nil, &FileError{0, gzipError(err)}
		}
		raw = bufio.NewReaderSize(gzipReader{unpacked}, bufferSize)
		if form := formOf(raw); form == "gzip" {
			return nil, &FileError{0, errors.New("the file is gzipped twice: unpack it once with gzip -d")}
		}
	}
	if form := formOf(raw); form != "" {
		return nil, &FileError{0, errors.New(forms[form])}
	}
	if err := checkMark(raw, encoding); err != nil {
		return nil, err
	}
	if decoder == nil {
		return skipMark(raw), nil
	}
	return skipMark(bufio.NewReaderSize(transform.NewReader(raw, decoder()), bufferSize)), nil
}

// mark is the byte order mark in UTF-8.
const mark = "\xef\xbb\xbf"

// skipMark passes one byte order mark over.
func skipMark(text *bufio.Reader) *bufio.Reader {
	head(text, func(data []byte) bool { return !strings.HasPrefix(mark, string(data)) })
	if data, _ := text.Peek(min(len(mark), text.Buffered())); string(data) == mark {
		text.Discard(len(mark))
	}
	return text
}

// checkMark refuses a text whose beginning shows another encoding than it is
// to be read by.
func checkMark(raw *bufio.Reader, encoding string) error {
	var data []byte
	head(raw, func(d []byte) bool { // no more than it takes: a pipe may have no more
		data = d
		switch {
		case bytes.HasPrefix(d, []byte("\xff\xfe")), bytes.HasPrefix(d, []byte("\x00\x00")):
			return len(d) >= 4
		case bytes.HasPrefix(d, []byte(mark[:2])):
			return len(d) >= 3
		}
		return len(d) >= 2
	})
	wide := len(data) >= 2 && (data[0] == 0xff && data[1] == 0xfe || data[0] == 0xfe && data[1] == 0xff)
	switch {
	case len(data) >= 4 && (string(data[:4]) == "\xff\xfe\x00\x00" || string(data[:4]) == "\x00\x00\xfe\xff"):
		return &FileError{0, errors.New("the file is UTF-32, which is not read: save it as UTF-8")}
	case encoding == "utf-16":
		return nil
	case wide || len(data) >= 2 && (data[0] == 0) != (data[1] == 0):
		return &FileError{0, errors.New("the file is UTF-16: read it with --encoding utf-16")}
	case bytes.HasPrefix(data, []byte(mark)) && decoders[encoding] != nil:
		return optionError("--encoding %s: the file begins with the byte order mark of UTF-8; leave the option out", encoding)
	}
	return nil
}

// Encodings are the names of the encodings.
var Encodings = []string{"utf-8", "latin-1", "windows-1252", "utf-16"}

var decoders = map[string]func() transform.Transformer{
	"": nil, "utf-8": nil,
	"latin-1":      func() transform.Transformer { return oneByte{charmap.ISO8859_1} },
	"windows-1252": func() transform.Transformer { return oneByte{charmap.Windows1252} },
	"utf-16":       func() transform.Transformer { return &twoBytes{} },
}

// oneByte decodes an encoding of one byte a character. A byte that stands for
// none stays as it is, alone, and so is not UTF-8; the library's own decoder
// would replace it in silence.
type oneByte struct{ charset *charmap.Charmap }

func (oneByte) Reset() {}

func (o oneByte) Transform(dst, src []byte, _ bool) (nDst, nSrc int, err error) {
	for _, b := range src {
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		if r := o.charset.DecodeByte(b); r == utf8.RuneError {
			dst[nDst] = b
			nDst++
		} else {
			nDst += utf8.EncodeRune(dst[nDst:], r)
		}
		nSrc++
	}
	return nDst, nSrc, nil
}

// twoBytes decodes UTF-16, little-endian unless a mark says otherwise. Half of
// a pair and half of a unit stay in the text as the byte 0xff, which is not
// UTF-8.
type twoBytes struct{ begun, bigEndian bool }

func (t *twoBytes) Reset() { *t = twoBytes{} }

func (t *twoBytes) unit(b []byte) rune {
	if t.bigEndian {
		return rune(b[0])<<8 | rune(b[1])
	}
	return rune(b[1])<<8 | rune(b[0])
}

func (t *twoBytes) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	if !t.begun && len(src) >= 2 {
		t.begun, t.bigEndian = true, src[0] == 0xfe && src[1] == 0xff || src[0] == 0 && src[1] != 0
	}
	for nSrc < len(src) {
		rest := src[nSrc:]
		if len(dst)-nDst < utf8.UTFMax {
			return nDst, nSrc, transform.ErrShortDst
		}
		short := len(rest) < 2
		if !short && utf16.IsSurrogate(t.unit(rest)) {
			short = len(rest) < 4
		}
		if short && !atEOF {
			return nDst, nSrc, transform.ErrShortSrc
		}
		r, size := t.character(rest)
		if r == utf8.RuneError && size < 4 && (len(rest) < 2 || t.unit(rest) != utf8.RuneError) {
			dst[nDst] = 0xff
			nDst++
		} else {
			nDst += utf8.EncodeRune(dst[nDst:], r)
		}
		nSrc += size
	}
	return nDst, nSrc, nil
}

// character decodes the first character, and tells its bytes. What is none is
// utf8.RuneError.
func (t *twoBytes) character(b []byte) (r rune, size int) {
	if len(b) < 2 {
		return utf8.RuneError, len(b)
	}
	first := t.unit(b)
	if !utf16.IsSurrogate(first) {
		return first, 2
	}
	if len(b) >= 4 {
		if r := utf16.DecodeRune(first, t.unit(b[2:])); r != utf8.RuneError {
			return r, 4
		}
	}
	return utf8.RuneError, 2
}

// forms are the well-known forms of files that are not read, by their first
// bytes, and what to do about each.
var forms = map[string]string{
	"PK\x03\x04":               "the file is a zip archive (an Excel .xlsx is one): unpack it, or save the sheet as CSV",
	"PK\x05\x06":               "the file is an empty zip archive",
	"BZh":                      "the file is compressed with bzip2: bzip2 -dc FILE | lockstep … -",
	"\xfd7zXZ\x00":             "the file is compressed with xz: xz -dc FILE | lockstep … -",
	"\x28\xb5\x2f\xfd":         "the file is compressed with zstd: zstd -dc FILE | lockstep … -",
	"\x04\x22\x4d\x18":         "the file is compressed with lz4: lz4 -dc FILE | lockstep … -",
	"7z\xbc\xaf\x27\x1c":       "the file is a 7z archive: unpack it first",
	"Rar!":                     "the file is a rar archive: unpack it first",
	"PAR1":                     "the file is Parquet: export it as CSV or JSON lines",
	"ARROW1":                   "the file is Arrow (Feather): export it as CSV or JSON lines",
	"FEA1":                     "the file is Feather: export it as CSV or JSON lines",
	"Obj\x01":                  "the file is Avro: export it as JSON lines",
	"ORC":                      "the file is ORC: export it as CSV or JSON lines",
	"SQLite format 3\x00":      "the file is an SQLite database: sqlite3 -csv -header FILE 'select …' | lockstep … -",
	"\x89HDF":                  "the file is HDF5: export it as CSV or JSON lines",
	"\x93NUMPY":                "the file is a NumPy array: export it as CSV",
	"\xd0\xcf\x11\xe0":         "the file is an old Excel workbook: save the sheet as CSV",
	"%PDF":                     "the file is a PDF",
	"<?xml":                    "the file is XML: export it as CSV or JSON lines",
	"<!DOCTYPE":                "the file is a web page, and not the file behind it",
	"<!doctype":                "the file is a web page, and not the file behind it",
	"<html":                    "the file is a web page, and not the file behind it",
	"version https://git-lfs.": "the file is a pointer of Git LFS, and not the file behind it: git lfs pull",
}

// longForms are the forms, the longest first bytes first.
var longForms = slices.SortedFunc(maps.Keys(forms), func(a, b string) int { return len(b) - len(a) })

// formOf is the first bytes of a well-known form, "gzip", or empty.
func formOf(r *bufio.Reader) (form string) {
	head(r, func(data []byte) bool {
		if bytes.HasPrefix(data, []byte("\x1f\x8b")) {
			form = "gzip"
			return true
		}
		undecided := false
		for _, first := range longForms {
			if bytes.HasPrefix(data, []byte(first)) {
				form = first
				return true
			}
			undecided = undecided || strings.HasPrefix(first, string(data))
		}
		return !undecided && (len(data) != 1 || data[0] != 0x1f)
	})
	return form
}

// gzipReader names what is wrong with a gzip file.
type gzipReader struct{ *gzip.Reader }

func (g gzipReader) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	return n, gzipError(err)
}

func gzipError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the gzip file is cut off: fetch or make it again")
	case errors.Is(err, gzip.ErrHeader):
		return errors.New("the gzip file has something behind its end that is not gzip")
	case errors.Is(err, gzip.ErrChecksum):
		return errors.New("the gzip file is damaged: its checksum is wrong")
	}
	return err
}

// Interruptible is a pipe that ends with ErrStopped once ctx ends, after what
// was taken from it.
func Interruptible(ctx context.Context, in io.Reader) io.ReadCloser {
	r := &interruptible{ctx: ctx, chunks: make(chan chunk), closed: make(chan struct{})}
	go r.pump(in)
	return r
}

// interruptible reads ahead by one chunk in a goroutine of its own, for a read
// of a pipe cannot be ended from outside.
type interruptible struct {
	ctx     context.Context
	chunks  chan chunk
	closed  chan struct{}
	waiting atomic.Bool // the pump waits for the pipe, and has nothing in hand
	rest    []byte
	err     error // after rest
}

type chunk struct {
	data []byte
	err  error
}

// pump reads until the pipe ends, ctx ends, or no one reads any more. A read
// that hangs past that is left behind.
func (r *interruptible) pump(in io.Reader) {
	for r.ctx.Err() == nil {
		data := make([]byte, bufferSize)
		r.waiting.Store(true)
		n, err := in.Read(data)
		r.waiting.Store(false)
		select {
		case r.chunks <- chunk{data[:n], err}:
		case <-r.closed:
			return
		}
		if err != nil {
			return
		}
	}
	select {
	case r.chunks <- chunk{nil, ErrStopped}:
	case <-r.closed:
	}
}

func (r *interruptible) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		select {
		case c := <-r.chunks:
			r.rest, r.err = c.data, c.err
		case <-r.ctx.Done():
			if r.waiting.Load() {
				r.err = ErrStopped
			} else {
				c := <-r.chunks
				r.rest, r.err = c.data, c.err
			}
		}
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close has nothing more read ahead.
func (r *interruptible) Close() error {
	close(r.closed)
	return nil
}
