package model

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"lockstep/model/river"
)

// Semantics is the version of River whose quirks the fold reproduces. A spec
// that names none has this one.
const Semantics = "river-0.26"

// FieldType is the type of an input or of the label.
type FieldType uint8

// The types.
const (
	Number    FieldType = iota // a finite double within Min and Max
	Category                   // a text of at most MaxBytes bytes
	Boolean                    // true or false; as a feature 1 or 0
	Timestamp                  // a moment, in RFC 3339 or as seconds since 1970
	Text                       // a text of at most MaxBytes bytes, of which words are made
)

func (t FieldType) String() string {
	return fieldTypes[t]
}

var fieldTypes = [...]string{"number", "category", "boolean", "timestamp", "text"}

// IsText reports whether values of the type are texts.
func (t FieldType) IsText() bool { return t == Category || t == Text }

// Field declares an input or the label.
type Field struct {
	Name      string
	Type      FieldType
	Nullable  bool
	Optional  bool     // an absent key is null
	Min, Max  float64  // of a number, inclusive; -Inf and +Inf where not given
	MaxValues int      // of a category: how many different values are learned; 64 where not given
	MaxBytes  int      // of a category: the longest value, unescaped; 64 where not given
	Integers  bool     // of a category: a whole number is a value too, as its digits
	Values    []string // of a category: no other is taken; nil where any is
	Overflow  bool     // of a category: what MaxValues has no room for is the value "other"
}

// OverflowValue is what a category's values past MaxValues share, where the
// spec says overflow: other.
const OverflowValue = "other"

// Spec declares a model: what goes in, what comes out, and the pipeline
// between. Whether the pipeline's steps fit each other is for New to say.
type Spec struct {
	Name        string
	Semantics   string
	Inputs      []Field // in the declared order, which is that of a Row
	Label       Field
	DedupWindow int // ids remembered
	Pipeline    []river.Step
	YAML        []byte // the source it was parsed from; no part of the contract
	// Logged: a log was made with it, so it folds even where a later rule
	// refuses its names for a new log. No part of the contract.
	Logged bool
}

//go:embed penguins.yaml penguins-gaussian.yaml
var shipped embed.FS

// ShippedSpecs are the names of the specs that come with Lockstep; the first
// is the default.
func ShippedSpecs() []string { return []string{"penguins", "penguins-gaussian"} }

// ShippedSpec is a spec that comes with Lockstep, by its name.
func ShippedSpec(name string) (*Spec, bool) {
	if !slices.Contains(ShippedSpecs(), name) {
		return nil, false
	}
	data, err := shipped.ReadFile(name + ".yaml")
	if err != nil {
		panic(err) // it is embedded
	}
	s, err := ParseSpec(data)
	if err != nil {
		panic(err) // a test parses each
	}
	return s, true
}

// DefaultSpec is the penguins' spec.
func DefaultSpec() *Spec {
	s, _ := ShippedSpec("penguins")
	return s
}

// Limits of a spec. Its bytes and nesting are bounded because a genesis
// message brings one from outside.
const (
	maxSpecBytes  = 64 << 10
	maxSpecDepth  = 32  // of nested YAML
	maxSpecLines  = 100 // of an error, one for each problem
	maxInputs     = 256
	maxNameBytes  = 64
	maxValues     = 1 << 16
	maxBytes      = 4096
	maxWindow     = 1 << 20
	defaultWindow = 1 << 16
	defaultValues = 64
	defaultBytes  = 64
)

var modelName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// numeral is how a spec may spell a number: JSON's way. YAML's others (010,
// 0x10, 1_000, .inf) mean different things to different readers.
var numeral = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// ParseSpec reads a spec and fills in the defaults. The error names every
// problem, each with its line; a text that is not YAML has the first only.
func ParseSpec(data []byte) (*Spec, error) {
	if len(data) > maxSpecBytes {
		return nil, fmt.Errorf("the spec has %d bytes, the most is %d", len(data), maxSpecBytes)
	}
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("the spec is empty")
	} else if err != nil {
		return nil, fmt.Errorf("the spec is not YAML: %s", printable(err.Error()))
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d: the spec holds more than one YAML document", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the spec is not YAML: %s", printable(err.Error()))
	}
	p := &specParser{}
	if !p.plain(doc.Content[0], 1) {
		return nil, p.err()
	}
	s := p.spec(doc.Content[0])
	s.YAML = bytes.Clone(data)
	if err := p.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// specParser walks the YAML and collects all problems.
type specParser struct{ problems []specProblem }

type specProblem struct {
	line int
	msg  string
}

// fail records a problem. An alias has had its own already, so whatever else
// seems wrong with it is no news.
func (p *specParser) fail(n *yaml.Node, format string, args ...any) {
	if n.Kind != yaml.AliasNode {
		p.problems = append(p.problems, specProblem{n.Line, fmt.Sprintf(format, args...)})
	}
}

// failAt reports what is missing on a line.
func (p *specParser) failAt(line int, format string, args ...any) {
	p.problems = append(p.problems, specProblem{line, fmt.Sprintf(format, args...)})
}

// err is all problems in the order of their lines, or nil.
func (p *specParser) err() error {
	if len(p.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(p.problems, func(a, b specProblem) int { return cmp.Compare(a.line, b.line) })
	var b strings.Builder
	b.WriteString("the spec is not valid:")
	for i, problem := range p.problems {
		if i == maxSpecLines {
			fmt.Fprintf(&b, "\n  and %d more", len(p.problems)-i)
			break
		}
		fmt.Fprintf(&b, "\n  line %d: %s", problem.line, printable(problem.msg))
	}
	return errors.New(b.String())
}

// plain refuses the parts of YAML that make a text mean something else than
// it shows: anchors, aliases and tags. It reports whether the nesting is
// shallow enough to be walked.
func (p *specParser) plain(n *yaml.Node, depth int) bool {
	if depth > maxSpecDepth {
		p.fail(n, "nested deeper than %d", maxSpecDepth)
		return false
	}
	switch {
	case n.Kind == yaml.AliasNode:
		p.problems = append(p.problems, specProblem{n.Line, "aliases (*" + n.Value + ") are not read; write the value out"})
	case n.Anchor != "":
		p.fail(n, "anchors (&%s) are not read; write the value out where it is needed", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		p.fail(n, "tags (%s) are not read", n.Tag)
	}
	for _, child := range n.Content {
		if !p.plain(child, depth+1) {
			return false
		}
	}
	return true
}

// mapping is a YAML mapping whose keys are distinct and known.
type mapping struct {
	node    *yaml.Node
	what    string
	entries []entry // in their order
}

type entry struct{ key, value *yaml.Node }

// find returns a key's value, or nil.
func (m mapping) find(key string) *yaml.Node {
	for _, e := range m.entries {
		if e.key.Value == key {
			return e.value
		}
	}
	return nil
}

// mapping reads a mapping; known lists its keys, nil lets any pass.
func (p *specParser) mapping(n *yaml.Node, what string, known []string) (mapping, bool) {
	m := mapping{node: n, what: what}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s must be a mapping, as in {key: value}", what)
		return m, false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fail(key, "%s: a key must be a text", what)
		case m.find(key.Value) != nil:
			p.fail(key, "%s: %q is given twice", what, key.Value)
		case known != nil && !slices.Contains(known, key.Value):
			p.fail(key, "%s: %q is not known here; known: %s", what, key.Value, list(known))
		default:
			m.entries = append(m.entries, entry{key, n.Content[i+1]})
		}
	}
	return m, true
}

func list(known []string) string {
	if len(known) == 0 {
		return "none"
	}
	return strings.Join(known, ", ")
}

// need returns the value of a key that must be there, or nil.
func (p *specParser) need(m mapping, key string) *yaml.Node {
	v := m.find(key)
	if v == nil {
		p.fail(m.node, "%s: %s is missing", m.what, key)
	}
	return v
}

func (p *specParser) text(n *yaml.Node, what string) string {
	if !isText(n) {
		p.fail(n, "%s must be a text", what)
		return ""
	}
	return n.Value
}

// isText tells a scalar from null, a list or a mapping. 7 and true are texts
// where a text is wanted, as they are spelled.
func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" }

// choice reads one of a few words; another gives "".
func (p *specParser) choice(n *yaml.Node, what string, known []string) string {
	if n.Kind == yaml.ScalarNode && slices.Contains(known, n.Value) {
		return n.Value
	}
	p.fail(n, "%s: %q is not known; known: %s%s", what, n.Value, list(known), hint(n.Value, known))
	return ""
}

func (p *specParser) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		p.fail(n, "%s must be true or false", what)
	}
	return strings.EqualFold(n.Value, "true")
}

// double reads a number. What overflows a double is not one, and -0 is 0.
func (p *specParser) double(n *yaml.Node, what string) (v float64, ok bool) {
	plain := n.Kind == yaml.ScalarNode && n.Style == 0 && numeral.MatchString(n.Value)
	v, err := strconv.ParseFloat(n.Value, 64)
	if !plain || err != nil {
		p.fail(n, "%s must be a number, as in 10, 2.5 or 1e6", what)
		return 0, false
	}
	if v == 0 {
		return 0, true
	}
	return v, true
}

func (p *specParser) number(n *yaml.Node, what string) float64 {
	v, _ := p.double(n, what)
	return v
}

// whole reads a whole number, in whatever spelling: 1e3 is 1000.
func (p *specParser) whole(n *yaml.Node, what string, least, most int) int {
	v, ok := p.double(n, what)
	if ok && (v != math.Trunc(v) || v < float64(least) || v > float64(most)) {
		p.fail(n, "%s must be a whole number from %d to %d", what, least, most)
		return least
	}
	return int(v)
}

func (p *specParser) spec(n *yaml.Node) *Spec {
	s := &Spec{Semantics: Semantics, DedupWindow: defaultWindow}
	m, ok := p.mapping(n, "the spec", []string{"name", "semantics", "input", "label", "dedup", "pipeline"})
	if !ok {
		return s
	}
	if v := p.need(m, "name"); v != nil {
		if s.Name = p.text(v, "name"); isText(v) && !modelName.MatchString(s.Name) {
			p.fail(v, "name must be a small letter, then up to 31 small letters, digits and hyphens: it begins every subject")
		}
	}
	if v := m.find("semantics"); v != nil {
		s.Semantics = p.choice(v, "semantics", []string{Semantics})
	}
	if v := p.need(m, "input"); v != nil {
		s.Inputs = p.inputs(v)
	}
	if v := p.need(m, "label"); v != nil {
		s.Label = p.label(v)
	}
	if v := m.find("dedup"); v != nil {
		s.DedupWindow = p.dedup(v)
	}
	if v := p.need(m, "pipeline"); v != nil {
		s.Pipeline = p.steps(v, "pipeline")
	}
	return s
}

func (p *specParser) dedup(n *yaml.Node) int {
	m, _ := p.mapping(n, "dedup", []string{"window"})
	if v := m.find("window"); v != nil {
		return p.whole(v, "dedup.window", 0, maxWindow)
	}
	return defaultWindow
}

func (p *specParser) inputs(n *yaml.Node) []Field {
	m, ok := p.mapping(n, "input", nil)
	if ok && (len(n.Content) == 0 || len(m.entries) > maxInputs) {
		p.fail(n, "input declares %d fields, and must declare 1 to %d", len(m.entries), maxInputs)
	}
	var out []Field
	for _, e := range m.entries {
		out = append(out, p.input(e))
	}
	return out
}

func (p *specParser) input(e entry) Field {
	what := "input " + e.key.Value
	f := newField(p.fieldName(e.key, "input"))
	m, ok := p.mapping(e.value, what, append([]string{"type", "nullable", "optional", "overflow"}, ownKeys...))
	if !ok {
		return f
	}
	kind := p.need(m, "type")
	if kind == nil {
		return f
	}
	p.kind(m, kind, &f)
	if v := m.find("nullable"); v != nil {
		f.Nullable = p.boolean(v, what+": nullable")
	}
	if v := m.find("optional"); v != nil {
		f.Optional = p.boolean(v, what+": optional")
		f.Nullable = f.Nullable || f.Optional
	}
	if v := m.find("overflow"); v != nil {
		f.Overflow = p.choice(v, what+": overflow", []string{OverflowValue}) != ""
		if f.Type != Category || f.Values != nil {
			p.fail(v, "%s: overflow is for categories that take any value", what)
		}
	}
	return f
}

func (p *specParser) label(n *yaml.Node) Field {
	f := newField("")
	f.Type = Category
	m, ok := p.mapping(n, "label", append([]string{"name", "type"}, ownKeys...))
	if !ok {
		return f
	}
	if v := p.need(m, "name"); v != nil {
		f.Name = p.fieldName(v, "label: name")
	}
	if v := p.need(m, "type"); v != nil {
		if p.kind(m, v, &f); f.Type == Timestamp || f.Type == Text {
			p.fail(v, "label: a label is a category, a boolean or a number")
		}
	}
	return f
}

// kind reads the type of an input or of the label, and the settings that the
// type has.
func (p *specParser) kind(m mapping, n *yaml.Node, f *Field) {
	switch p.choice(n, m.what+": type", fieldTypes[:]) {
	case "number":
		f.Type = Number
		p.bounds(m, f)
		p.unfit(m, "is for categories; a number has min and max", "max_values", "max_bytes", "integers", "values")
	case "category":
		f.Type = Category
		p.sizes(m, f)
		p.closed(m, f)
		p.unfit(m, "is for numbers; a category has max_values and max_bytes", "min", "max")
	case "boolean":
		f.Type, f.Min, f.Max = Boolean, 0, 1
		p.unfit(m, "is not for booleans, which are true or false", ownKeys...)
	case "timestamp":
		f.Type, f.Min, f.Max = Timestamp, minTimestamp, maxTimestamp
		p.unfit(m, "is not for timestamps", ownKeys...)
	case "text":
		f.Type = Text
		p.sizes(m, f)
		p.unfit(m, "is not for texts; a text has max_bytes", "min", "max", "max_values", "integers", "values")
	}
}

// ownKeys are the settings that only some types have.
var ownKeys = []string{"min", "max", "max_values", "max_bytes", "integers", "values"}

// closed reads what closes a category's vocabulary.
func (p *specParser) closed(m mapping, f *Field) {
	if v := m.find("integers"); v != nil {
		f.Integers = p.boolean(v, m.what+": integers")
	}
	v := m.find("values")
	if v == nil {
		return
	}
	if v.Kind != yaml.SequenceNode || len(v.Content) == 0 || len(v.Content) > maxValues {
		p.fail(v, "%s: values must be a list of 1 to %d texts", m.what, maxValues)
		return
	}
	if given := m.find("max_values"); given != nil {
		p.fail(given, "%s: max_values is not for a category that lists its values", m.what)
	}
	for _, e := range v.Content {
		switch text := p.text(e, m.what+": a value"); {
		case slices.Contains(f.Values, text):
			p.fail(e, "%s: the value %q is given twice", m.what, text)
		case len(text) > f.MaxBytes:
			p.fail(e, "%s: the value %q has more than %d bytes; raise max_bytes", m.what, text, f.MaxBytes)
		default:
			f.Values = append(f.Values, text)
		}
	}
	f.MaxValues = max(len(f.Values), 1)
}

func newField(name string) Field {
	return Field{Name: name, Min: math.Inf(-1), Max: math.Inf(1), MaxValues: defaultValues, MaxBytes: defaultBytes}
}

func (p *specParser) fieldName(n *yaml.Node, what string) string {
	name := p.text(n, what)
	if isText(n) && (name == "" || len(name) > maxNameBytes || strings.ContainsFunc(name, unicode.IsControl)) {
		p.fail(n, "%s: a name has 1 to %d bytes and no control character, and %q has not", what, maxNameBytes, name)
	}
	return name
}

// bounds reads a number's own keys, sizes a category's, and unfit refuses
// those of the other type.
func (p *specParser) bounds(m mapping, f *Field) {
	if v := m.find("min"); v != nil {
		f.Min = p.number(v, m.what+": min")
	}
	if v := m.find("max"); v != nil {
		f.Max = p.number(v, m.what+": max")
	}
	if f.Min > f.Max {
		p.fail(m.node, "%s: min is above max", m.what)
	}
}

func (p *specParser) sizes(m mapping, f *Field) {
	if v := m.find("max_values"); v != nil {
		f.MaxValues = p.whole(v, m.what+": max_values", 1, maxValues)
	}
	if v := m.find("max_bytes"); v != nil {
		f.MaxBytes = p.whole(v, m.what+": max_bytes", 1, maxBytes)
	}
}

func (p *specParser) unfit(m mapping, why string, keys ...string) {
	for _, e := range m.entries {
		if slices.Contains(keys, e.key.Value) {
			p.fail(e.key, "%s: %s %s", m.what, e.key.Value, why)
		}
	}
}

// Canonical is the spec's meaning as text, with all defaults: the same bytes
// for the same fold, however the YAML was spelled, commented or ordered. The
// order of the inputs, of Select's columns and of steps and branches has a
// meaning, and is kept.
//
// The first line is the version of this format. Then one fact stands on each
// line: its kind, the name if it has one, and its settings in a fixed order;
// steps are indented under their branch. Texts are quoted as Go's
// strconv.QuoteToASCII does (%+q), which unlike %q does not depend on a
// version of Unicode, and doubles have the fewest digits that read back as
// the same double.
func (s *Spec) Canonical() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "lockstep-spec 1\nname %+q\nsemantics %+q\ndedup window=%d\n", s.Name, s.Semantics, s.DedupWindow)
	for i := range s.Inputs {
		canonicalField(&b, "input", &s.Inputs[i])
	}
	canonicalField(&b, "label", &s.Label)
	b.WriteString("pipeline\n")
	canonicalSteps(&b, s.Pipeline, "  ")
	return b.Bytes()
}

func canonicalField(b *bytes.Buffer, kind string, f *Field) {
	fmt.Fprintf(b, "%s %+q %s nullable=%t", kind, f.Name, f.Type, f.Nullable)
	switch f.Type {
	case Category:
		fmt.Fprintf(b, " max_values=%d max_bytes=%d", f.MaxValues, f.MaxBytes)
		for _, value := range f.Values {
			fmt.Fprintf(b, " value=%+q", value)
		}
	case Number:
		fmt.Fprintf(b, " min=%s max=%s", river.Shortest(f.Min), river.Shortest(f.Max))
	}
	if f.Type == Text {
		fmt.Fprintf(b, " max_bytes=%d", f.MaxBytes)
	}
	for _, option := range []struct {
		set  bool
		name string
	}{{f.Optional, "optional"}, {f.Integers, "integers"}, {f.Overflow, "overflow"}} {
		if option.set {
			b.WriteString(" " + option.name + "=true")
		}
	}
	b.WriteByte('\n')
}

// Contract is the SHA-256 of Canonical. Replicas of one contract make the
// same of the same log.
func (s *Spec) Contract() [32]byte { return sha256.Sum256(s.Canonical()) }
