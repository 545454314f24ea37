package model

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable escapes what does not show on a line as it is: control characters,
// characters that turn the direction of writing, bytes that are not UTF-8.
// Texts of strangers stand in errors, and an error ends in a terminal, a log
// or a header.
func printable(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && size == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
		text = text[size:]
	}
	return b.String()
}
