package web

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"lockstep/model"
)

// lax rewrites a body's numbers that came as texts or booleans as pydantic
// takes them. What no number can be made of stays, and is refused.
func lax(spec *model.Spec, verb string, data []byte) (out []byte, changed bool) {
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	copied := 0
	for {
		before := d.InputOffset()
		token, err := d.ReadToken()
		if err != nil {
			break
		}
		kind := token.Kind()
		if kind != '"' && kind != 't' && kind != 'f' || !isNumber(spec, verb, d) {
			continue
		}
		end := int(d.InputOffset())
		begin := end - len(bytes.TrimLeft(data[before:end], " \t\r\n:,"))
		v, ok := 0.0, true
		switch kind {
		case 't':
			v = 1
		case '"':
			v, ok = number(token.String())
		}
		if !ok || math.IsInf(v, 0) || math.IsNaN(v) {
			continue
		}
		out = append(out, data[copied:begin]...)
		out = strconv.AppendFloat(out, v, 'g', -1, 64)
		copied, changed = end, true
	}
	return append(out, data[copied:]...), changed
}

// isNumber reports whether the value that a decoder has just read stands where
// the spec wants a number.
func isNumber(spec *model.Spec, verb string, d *jsontext.Decoder) bool {
	depth := d.StackDepth()
	if depth == 0 {
		return false
	}
	if kind, n := d.StackIndex(depth); kind != '{' || n%2 != 0 {
		return false // not an object's value
	}
	path := strings.Split(string(d.StackPointer()), "/")[1:]
	if verb == "teach" {
		if first, _ := d.StackIndex(1); first == '[' && len(path) > 0 {
			path = path[1:]
		}
		if len(path) != 2 || path[0] != "attributes" {
			return false
		}
		path = path[1:]
	}
	return len(path) == 1 && slices.ContainsFunc(spec.Inputs, func(f model.Field) bool {
		return f.Type == model.Number && f.Name == jsontext.Pointer("/"+path[0]).LastToken()
	})
}

// number is what pydantic reads in a text: white space around it, single
// underscores, a sign, and Python's names of what is not finite.
func number(text string) (v float64, ok bool) {
	text = strings.TrimFunc(text, unicode.IsSpace)
	if strings.ContainsAny(text, "xXpP") {
		return 0, false // hexadecimal is Go's alone
	}
	if strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") || strings.Contains(text, "__") {
		return 0, false
	}
	text = strings.ReplaceAll(text, "_", "")
	if len(text) == len("-nan") && strings.EqualFold(text[1:], "nan") {
		text = text[1:] // Go's NaN has no sign
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil || math.IsInf(v, 0)
}
