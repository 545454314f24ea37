// Package printable makes text that strangers wrote safe to show: a label, a
// category, an error of a server. Such text can hold what a terminal obeys
// (cursor movement, colours, the window's title), what turns a line around
// (bidirectional overrides), and what cannot be seen at all. Each such
// character is written as JSON escapes it, so the output says what was there,
// and JSON stays the same JSON.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is s as part of a line: whatever is not a letter, a mark, a number,
// punctuation, a symbol or a space is escaped, line breaks and tabs too.
// Bytes that are not UTF-8 are escaped one by one, as in \x9b.
func Text(s string) string { return escape(s, "") }

// Lines is s as lines of its own: Text, but line breaks and tabs stay.
func Lines(s string) string { return escape(s, "\n\t") }

// Error is err with the text of Text. It wraps err, so errors.Is and
// errors.As see through it; nil stays nil.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return &printableError{err}
}

type printableError struct{ err error }

func (e *printableError) Error() string { return Text(e.err.Error()) }
func (e *printableError) Unwrap() error { return e.err }

// visible reports whether a character shows as itself and obeys no one.
// Variation selectors, fillers and joiners are marks and letters to Unicode,
// but nothing to the eye: two texts that differ in them look the same.
func visible(r rune) bool {
	return unicode.IsGraphic(r) && !unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

func escape(s, keep string) string {
	first := indexHidden(s, keep)
	if first < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:first])
	for s = s[first:]; s != ""; {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case visible(r) || strings.ContainsRune(keep, r):
			b.WriteString(s[:size])
		default:
			writeEscape(&b, r)
		}
		s = s[size:]
	}
	return b.String()
}

// indexHidden is where the first character is that has to be escaped, or -1.
func indexHidden(s, keep string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
		if !visible(r) && !strings.ContainsRune(keep, r) {
			return i
		}
	}
	return -1
}

func writeEscape(b *strings.Builder, r rune) {
	switch r {
	case '\n':
		b.WriteString(`\n`)
	case '\r':
		b.WriteString(`\r`)
	case '\t':
		b.WriteString(`\t`)
	default:
		if r > 0xffff { // JSON writes a surrogate pair
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x`, 0xd800+(r>>10))
			r = 0xdc00 + r&0x3ff
		}
		fmt.Fprintf(b, `\u%04x`, r)
	}
}
