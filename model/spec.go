package model

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Semantics is the version of River whose quirks the fold reproduces.
const Semantics = "river-0.26"

// FieldType is the type of an input or of the label.
type FieldType uint8

// The types.
const (
	Number   FieldType = iota // a finite double within Min and Max
	Category                  // a text of at most MaxBytes bytes
)

// Field declares an input or the label.
type Field struct {
	Name      string
	Type      FieldType
	Nullable  bool
	Min, Max  float64 // of a number, inclusive; ∓Inf where not given
	MaxValues int     // of a category: how many different values are learned
	MaxBytes  int     // of a category: the longest value
}

// Step is one of River's classes with its keywords; only the class's own are
// set.
type Step struct {
	Class     string
	Line      int      // in the YAML, for errors; no part of the contract
	Columns   []string // Select
	Branches  [][]Step // union: each a list, River's |
	DropFirst bool     // OneHotEncoder
	Imputes   []Impute // StatImputer, in the declared order
	WithStd   bool     // StandardScaler
	Alpha     float64  // MultinomialNB
}

// Impute says what a StatImputer puts in place of a column's nulls.
type Impute struct {
	Column string
	Stat   string // Mean or Mode
}

// Spec declares a model: what goes in, what comes out, and the pipeline.
type Spec struct {
	Name        string
	Semantics   string
	Inputs      []Field // in the declared order, which is that of rows
	Label       Field
	DedupWindow int // ids remembered
	Pipeline    []Step
	YAML        []byte // the source it was parsed from; no part of the contract
}

//go:embed penguins.yaml penguins-gaussian.yaml
var shipped embed.FS

// ShippedSpecs are the names of the specs that come with Lockstep.
func ShippedSpecs() []string { return []string{"penguins", "penguins-gaussian"} }

// ShippedSpec is a spec that comes with Lockstep.
func ShippedSpec(name string) (*Spec, bool) {
	if !slices.Contains(ShippedSpecs(), name) {
		return nil, false
	}
	data, err := shipped.ReadFile(name + ".yaml")
	if err != nil {
		panic(err)
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

// Limits of a spec.
const (
	maxSpecBytes  = 64 << 10
	maxInputs     = 256
	maxNameBytes  = 64
	maxValues     = 1 << 16
	maxBytes      = 4096
	maxWindow     = 1 << 20
	maxSpecDepth  = 16
	defaultWindow = 1 << 16
)

var modelName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ParseSpec reads a spec. The error names every problem, each with its line.
func ParseSpec(data []byte) (*Spec, error) {
	if len(data) > maxSpecBytes {
		return nil, fmt.Errorf("the spec has %d bytes, the most is %d", len(data), maxSpecBytes)
	}
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("the spec is not YAML: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("the spec holds more than one YAML document")
	}
	p := &specParser{}
	s := p.spec(doc.Content[0])
	s.YAML = bytes.Clone(data)
	if len(p.problems) > 0 {
		return nil, fmt.Errorf("the spec is not valid:\n  %s", strings.Join(p.problems, "\n  "))
	}
	return s, nil
}

// specParser walks the YAML and collects all problems.
type specParser struct {
	problems []string
	depth    int
}

func (p *specParser) fail(n *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf("line %d: %s", n.Line, fmt.Sprintf(format, args...)))
}

// pair is an entry of a YAML mapping.
type pair struct{ key, value *yaml.Node }

// mapping returns a mapping's entries in their order. Keys are texts, known
// where known is given, and none comes twice.
func (p *specParser) mapping(n *yaml.Node, what string, known ...string) []pair {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s must be a mapping, as in {key: value}", what)
		return nil
	}
	var out []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			p.fail(key, "%s: a key must be a text", what)
		case seen[key.Value]:
			p.fail(key, "%s: %s is given twice", what, key.Value)
		case len(known) > 0 && !slices.Contains(known, key.Value):
			p.fail(key, "%s: %s is not known here; known are %s", what, key.Value, strings.Join(known, ", "))
		default:
			seen[key.Value] = true
			out = append(out, pair{key, n.Content[i+1]})
		}
	}
	return out
}

func (p *specParser) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.fail(n, "%s must be a text", what)
		return ""
	}
	return n.Value
}

func (p *specParser) boolean(n *yaml.Node, what string) bool {
	var v bool
	if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil {
		p.fail(n, "%s must be true or false", what)
	}
	return v
}

func (p *specParser) number(n *yaml.Node, what string) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		p.fail(n, "%s must be a number", what)
		return 0
	}
	return v + 0 // -0 is 0
}

func (p *specParser) integer(n *yaml.Node, what string, least, most int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < least || v > most {
		p.fail(n, "%s must be a whole number from %d to %d", what, least, most)
		return least
	}
	return v
}

func (p *specParser) spec(n *yaml.Node) *Spec {
	s := &Spec{Semantics: Semantics, DedupWindow: defaultWindow}
	found := map[string]bool{}
	for _, e := range p.mapping(n, "the spec", "name", "semantics", "input", "label", "dedup", "pipeline") {
		found[e.key.Value] = true
		switch e.key.Value {
		case "name":
			if s.Name = p.text(e.value, "name"); !modelName.MatchString(s.Name) {
				p.fail(e.value, "name must be a small letter and then at most 31 small letters, digits and hyphens; it begins every subject")
			}
		case "semantics":
			if s.Semantics = p.text(e.value, "semantics"); s.Semantics != Semantics {
				p.fail(e.value, "semantics %s is not known; this program has %s", s.Semantics, Semantics)
			}
		case "input":
			s.Inputs = p.inputs(e.value)
		case "label":
			s.Label = p.label(e.value)
		case "dedup":
			for _, d := range p.mapping(e.value, "dedup", "window") {
				s.DedupWindow = p.integer(d.value, "dedup.window", 0, maxWindow)
			}
		case "pipeline":
			s.Pipeline = p.steps(e.value, "pipeline")
		}
	}
	for _, key := range []string{"name", "input", "label", "pipeline"} {
		if !found[key] {
			p.fail(n, "%s is missing", key)
		}
	}
	return s
}

func (p *specParser) inputs(n *yaml.Node) []Field {
	var out []Field
	for _, e := range p.mapping(n, "input") {
		out = append(out, p.field(e.key, e.key.Value, e.value))
	}
	if len(out) == 0 || len(out) > maxInputs {
		p.fail(n, "input must declare 1 to %d fields", maxInputs)
	}
	return out
}

func (p *specParser) label(n *yaml.Node) Field {
	var name *yaml.Node
	rest := &yaml.Node{Kind: yaml.MappingNode, Line: n.Line}
	for _, e := range p.mapping(n, "label") {
		if e.key.Value == "name" {
			name = e.value
			continue
		}
		rest.Content = append(rest.Content, e.key, e.value)
	}
	if name == nil {
		p.fail(n, "label: name is missing")
		return Field{}
	}
	f := p.field(n, p.text(name, "label: name"), rest)
	if f.Type != Category || f.Nullable {
		p.fail(n, "label must be a category, and never null")
	}
	if f.Name == "attributes" || f.Name == "id" {
		p.fail(n, "label: the name %s means something else in an event", f.Name)
	}
	return f
}

func (p *specParser) field(at *yaml.Node, name string, n *yaml.Node) Field {
	f := Field{Name: name, Min: math.Inf(-1), Max: math.Inf(1), MaxValues: 64, MaxBytes: 64}
	if name == "" || len(name) > maxNameBytes || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.fail(at, "%q: a field's name must have 1 to %d bytes and no control characters", name, maxNameBytes)
	}
	entries := p.mapping(n, name, "type", "nullable", "min", "max", "max_values", "max_bytes")
	typed := false
	for _, e := range entries {
		if e.key.Value == "type" {
			typed = true
			switch e.value.Value {
			case "number":
			case "category":
				f.Type = Category
			default:
				p.fail(e.value, "%s: type must be number or category", name)
			}
		}
	}
	if !typed {
		p.fail(n, "%s: type is missing: number or category", name)
		return f
	}
	for _, e := range entries {
		what := name + ": " + e.key.Value
		if forNumbers := e.key.Value == "min" || e.key.Value == "max"; e.key.Value != "type" && e.key.Value != "nullable" && forNumbers != (f.Type == Number) {
			p.fail(e.key, "%s is not for this type: min and max are for numbers, max_values and max_bytes for categories", what)
			continue
		}
		switch e.key.Value {
		case "nullable":
			f.Nullable = p.boolean(e.value, what)
		case "min":
			f.Min = p.number(e.value, what)
		case "max":
			f.Max = p.number(e.value, what)
		case "max_values":
			f.MaxValues = p.integer(e.value, what, 1, maxValues)
		case "max_bytes":
			f.MaxBytes = p.integer(e.value, what, 1, maxBytes)
		}
	}
	if f.Min > f.Max {
		p.fail(n, "%s: min is above max", name)
	}
	return f
}

// steps reads a list of steps, or one step alone.
func (p *specParser) steps(n *yaml.Node, what string) []Step {
	if p.depth++; p.depth > maxSpecDepth {
		p.fail(n, "%s is nested too deep", what)
		return nil
	}
	defer func() { p.depth-- }()
	if n.Kind != yaml.SequenceNode {
		return []Step{p.step(n)}
	}
	if len(n.Content) == 0 {
		p.fail(n, "%s is empty", what)
	}
	var out []Step
	for _, e := range n.Content {
		out = append(out, p.step(e))
	}
	return out
}

// classes are the known steps, with their keywords.
var classes = []string{"Select", "union", "OneHotEncoder", "StatImputer", "StandardScaler", "MultinomialNB", "GaussianNB"}

func (p *specParser) step(n *yaml.Node) Step {
	name, args := n, (*yaml.Node)(nil)
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		name, args = n.Content[0], n.Content[1]
	}
	s := Step{Class: name.Value, Line: n.Line, WithStd: true, Alpha: 1}
	if name.Kind != yaml.ScalarNode || !slices.Contains(classes, s.Class) {
		p.fail(n, "%s is not a known step; known are %s%s", orThis(name), strings.Join(classes, ", "), hint(name.Value))
		return s
	}
	switch s.Class {
	case "Select":
		s.Columns = p.columns(n, args)
	case "union":
		s.Branches = p.union(n, args)
	default:
		if args != nil {
			p.keywords(&s, args)
		}
		if s.Class == "StatImputer" && len(s.Imputes) == 0 {
			p.fail(n, "StatImputer names no column, as in {StatImputer: {sex: Mode}}")
		}
	}
	return s
}

func orThis(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Value != "" {
		return n.Value
	}
	return "this"
}

// hint helps who writes a class as Python imports it.
func hint(name string) string {
	last := name[strings.LastIndex(name, ".")+1:]
	for _, class := range classes {
		if strings.EqualFold(strings.ReplaceAll(last, "_", ""), class) {
			return "; is it " + class + "?"
		}
	}
	return ""
}

func (p *specParser) columns(n, args *yaml.Node) []string {
	if args == nil || args.Kind != yaml.SequenceNode {
		p.fail(n, "Select takes a list of columns, as in {Select: [island]}")
		return nil
	}
	var out []string
	for _, e := range args.Content {
		out = append(out, p.text(e, "Select: a column"))
	}
	return out
}

func (p *specParser) union(n, args *yaml.Node) [][]Step {
	if args == nil || args.Kind != yaml.SequenceNode || len(args.Content) == 0 {
		p.fail(n, "union takes a list of branches, each a step or a list of steps")
		return nil
	}
	var out [][]Step
	for _, e := range args.Content {
		out = append(out, p.steps(e, "a branch of union"))
	}
	return out
}

// keywords reads a class's keyword arguments.
func (p *specParser) keywords(s *Step, n *yaml.Node) {
	switch s.Class {
	case "OneHotEncoder":
		for _, e := range p.mapping(n, s.Class, "drop_first") {
			s.DropFirst = p.boolean(e.value, "OneHotEncoder: drop_first")
		}
	case "StandardScaler":
		for _, e := range p.mapping(n, s.Class, "with_std") {
			s.WithStd = p.boolean(e.value, "StandardScaler: with_std")
		}
	case "MultinomialNB":
		for _, e := range p.mapping(n, s.Class, "alpha") {
			s.Alpha = p.number(e.value, "MultinomialNB: alpha")
		}
	case "GaussianNB":
		for _, e := range p.mapping(n, s.Class) {
			p.fail(e.key, "GaussianNB takes no keyword, and has %s", e.key.Value)
		}
	case "StatImputer":
		for _, e := range p.mapping(n, s.Class) {
			stat := p.text(e.value, "StatImputer: "+e.key.Value)
			if stat != "Mean" && stat != "Mode" {
				p.fail(e.value, "StatImputer: %s: %q is not known; known are Mean, Mode", e.key.Value, stat)
			}
			s.Imputes = append(s.Imputes, Impute{e.key.Value, stat})
		}
	}
}

// Canonical is the spec as the contract sees it: its meaning with all
// defaults, whatever the YAML's spelling, comments and order of keys. One
// fact stands on each line, texts are quoted, doubles have their shortest
// digits.
func (s *Spec) Canonical() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "lockstep-spec-1\nname %q\nsemantics %s\ndedup %d\n", s.Name, s.Semantics, s.DedupWindow)
	for i := range s.Inputs {
		s.Inputs[i].canonical(&b, "input")
	}
	s.Label.canonical(&b, "label")
	canonicalSteps(&b, s.Pipeline, "")
	return b.Bytes()
}

func (f *Field) canonical(b *bytes.Buffer, kind string) {
	if f.Type == Category {
		fmt.Fprintf(b, "%s %q category nullable=%t max_values=%d max_bytes=%d\n", kind, f.Name, f.Nullable, f.MaxValues, f.MaxBytes)
		return
	}
	fmt.Fprintf(b, "%s %q number nullable=%t min=%v max=%v\n", kind, f.Name, f.Nullable, f.Min, f.Max)
}

func canonicalSteps(b *bytes.Buffer, steps []Step, indent string) {
	for i := range steps {
		s := &steps[i]
		fmt.Fprintf(b, "%s- %s", indent, s.Class)
		switch s.Class {
		case "Select":
			fmt.Fprintf(b, " %q", s.Columns)
		case "OneHotEncoder":
			fmt.Fprintf(b, " drop_first=%t", s.DropFirst)
		case "StatImputer":
			for _, impute := range s.Imputes {
				fmt.Fprintf(b, " %q=%s", impute.Column, impute.Stat)
			}
		case "StandardScaler":
			fmt.Fprintf(b, " with_std=%t", s.WithStd)
		case "MultinomialNB":
			fmt.Fprintf(b, " alpha=%v", s.Alpha)
		}
		b.WriteByte('\n')
		for _, branch := range s.Branches {
			fmt.Fprintf(b, "%s  branch\n", indent)
			canonicalSteps(b, branch, indent+"    ")
		}
	}
}

// Contract is the hash of what decides the fold: replicas of one contract
// make the same of the same log.
func (s *Spec) Contract() [32]byte { return sha256.Sum256(s.Canonical()) }
