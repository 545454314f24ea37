package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/lmittmann/tint"
)

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":       "",
		"Adelie": "Adelie",
		"日本 ñandú Ж עברית ½ €  🐧": "日本 ñandú Ж עברית ½ €  🐧",
		"e\u0301":                  "e\u0301",
		"\x1b[2J":                  `\u001b[2J`,
		"a\nb\tc\rd\x00\x7f":       `a\nb\tc\rd\u0000\u007f`,
		"\u009b31m":                `\u009b31m`,
		"\x9b31m":                  `\x9b31m`,
		"a\u202eb\u2066c":          `a\u202eb\u2066c`,
		"a\u200bb\u200d\ufeff":     `a\u200bb\u200d\ufeff`,
		"\u00ad\u034f\u115f\u3164": `\u00ad\u034f\u115f\u3164`,
		"\u2028\u2029":             `\u2028\u2029`,
		"x\ufe0f\U000e0041":        `x\ufe0f\udb40\udc41`,
		"\ufffd":                   "\ufffd",
		"a\xffb":                   `a\xffb`,
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
	if got, want := Lines("a\n\tb\x1b\r"), "a\n\tb\\u001b\\r"; got != want {
		t.Errorf("Lines: got %q, want %q", got, want)
	}
}

// harmless fails if a character is left that a terminal obeys or hides.
func harmless(t *testing.T, shown, keep string) {
	t.Helper()
	if !utf8.ValidString(shown) {
		t.Fatalf("%q is not UTF-8", shown)
	}
	for _, r := range shown {
		if strings.ContainsRune(keep, r) {
			continue
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			t.Fatalf("%q has U+%04X", shown, r)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{"Adelie", "\x1b]0;x\a", "a\u202eb", "\xc2", "\u009b", "\U000e0001", `\u001b`, "a\nb"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		text := Text(in)
		harmless(t, text, "")
		if again := Text(text); again != text {
			t.Fatalf("escaped twice: got %q, want %q", again, text)
		}
		harmless(t, Lines(in), "\n\t")
		if got, want := strings.Count(Lines(in), "\n"), strings.Count(in, "\n"); got != want {
			t.Fatalf("%d line breaks, want %d", got, want)
		}
		// JSON stays JSON, and says the same.
		if !utf8.ValidString(in) {
			return
		}
		var quoted bytes.Buffer
		e := json.NewEncoder(&quoted)
		e.SetEscapeHTML(false)
		if err := e.Encode(in); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal([]byte(Lines(quoted.String())), &back); err != nil || back != in {
			t.Fatalf("got %q (%v), want %q", back, err, in)
		}
	})
}

func TestError(t *testing.T) {
	t.Parallel()
	if err := Error(nil); err != nil {
		t.Error(err)
	}
	err := Error(fmt.Errorf("a\x1b: %w", io.ErrUnexpectedEOF))
	if got, want := err.Error(), `a\u001b: unexpected EOF`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the error that it wraps is lost")
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(Handler(tint.NewTextHandler(&out, &tint.Options{NoColor: true})))
	log = log.With("base", "b\x1b").WithGroup("g\x07")
	log.Error("m\x1b[2J\nforged", "s", "\u009b", "e", errors.New("\u202e"), slog.Group("in", "k\x1b", []string{"\x1b"}))
	log.Info("plain", "n", 7)
	harmless(t, out.String(), "\n")
	if got, want := strings.Count(out.String(), "\n"), 2; got != want {
		t.Errorf("%d lines, want %d:\n%s", got, want, &out)
	}
	for _, want := range []string{`m\u001b[2J\nforged`, `b\u001b`, `\u009b`, `\u202e`, `[\u001b]`, `g\u0007.n=7`, "plain"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, &out)
		}
	}
}
