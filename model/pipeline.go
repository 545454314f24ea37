package model

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"lockstep/model/river"
)

// The parser of pipelines reads steps by the parameters that their classes
// declare, and knows no class by name.

// steps are the tasks of the classes that a pipeline is made of.
var stepTasks = []river.Task{river.Transformation, river.Classification, river.BinaryClassification, river.Regression}

// steps reads a list of steps, or one step alone.
func (p *specParser) steps(n *yaml.Node, what string) []river.Step {
	if n.Kind != yaml.SequenceNode {
		return []river.Step{p.step(n, stepTasks...)}
	}
	if len(n.Content) == 0 {
		p.fail(n, "%s is empty", what)
	}
	var out []river.Step
	for _, e := range n.Content {
		out = append(out, p.step(e, stepTasks...))
	}
	return out
}

// step reads `Class`, or `Class: argument`, where the class is for one of some
// tasks. A step that is not valid has no class.
func (p *specParser) step(n *yaml.Node, tasks ...river.Task) river.Step {
	name, argument := n, (*yaml.Node)(nil)
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		name, argument = n.Content[0], n.Content[1]
	}
	known := classNames(tasks...)
	if name.Kind != yaml.ScalarNode {
		p.fail(n, "a step is one class, as in {OneHotEncoder: {drop_first: true}}; known: %s", list(known))
		return river.Step{Line: n.Line}
	}
	class := findClass(name.Value, tasks...)
	if class == nil {
		p.fail(name, "%q is not a known class%s; known: %s", name.Value, hint(name.Value, known), list(known))
		return river.Step{Line: name.Line}
	}
	s := river.Step{Class: class, Args: class.Defaults(), Line: name.Line}
	if len(class.Params) == 1 && class.Params[0].Kind.Alone() {
		s.Args[0] = p.alone(class, name, argument)
		return s
	}
	p.keywords(&s, argument)
	return s
}

// absent reports whether a class stands alone: `Class`, or `Class:` with
// nothing behind.
func absent(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// keywords reads a class's keyword arguments over River's defaults.
func (p *specParser) keywords(s *river.Step, argument *yaml.Node) {
	var m mapping
	ok := true
	if !absent(argument) {
		known := []string{}
		for i := range s.Class.Params {
			known = append(known, s.Class.Params[i].Name)
		}
		m, ok = p.mapping(argument, s.Class.Name, known)
	}
	for i := range s.Class.Params {
		param := &s.Class.Params[i]
		if v := m.find(param.Name); v != nil {
			s.Args[i] = p.argument(param, v, s.Class.Name+": "+param.Name)
		} else if ok && param.Default == nil {
			p.failAt(s.Line, "%s: %s is missing: %s (%s)", s.Class.Name, param.Name, param.Summary, param.Range())
		}
	}
}

// word reads a text that becomes part of a name.
func (p *specParser) word(v *yaml.Node, what string) string {
	text := p.text(v, what)
	if n := len(text); isText(v) && (n == 0 || n > 64) {
		p.fail(v, "%s has 1 to 64 bytes", what)
	}
	return text
}

// columnList reads a list of columns, or one alone.
func (p *specParser) columnList(v *yaml.Node, what string) []string {
	if v.Kind == yaml.ScalarNode {
		return []string{p.text(v, what)}
	}
	if v.Kind != yaml.SequenceNode || len(v.Content) == 0 {
		p.fail(v, "%s takes a column, or a list of columns", what)
		return nil
	}
	var out []string
	for _, e := range v.Content {
		out = append(out, p.text(e, what+": a column"))
	}
	return out
}

// argument reads a keyword's value.
func (p *specParser) argument(param *river.Param, v *yaml.Node, what string) any {
	switch param.Kind {
	case river.Bool:
		return p.boolean(v, what)
	case river.Nested:
		return p.step(v, param.Task)
	case river.Word:
		return p.word(v, what)
	case river.ColumnList:
		return p.columnList(v, what)
	default:
		if param.Task != 0 && (v.Kind == yaml.MappingNode || findClass(v.Value, param.Task) != nil) {
			return p.step(v, param.Task)
		}
		x, ok := p.double(v, what)
		if ok && (x < param.Min || x > param.Max) {
			p.fail(v, "%s must be from %s to %s", what, river.Shortest(param.Min), river.Shortest(param.Max))
		} else if ok && param.Whole && x != float64(int64(x)) {
			p.fail(v, "%s must be a whole number", what)
		}
		return x
	}
}

// alone reads the only argument of a class that takes it without its name.
func (p *specParser) alone(class *river.Class, name, argument *yaml.Node) any {
	switch class.Params[0].Kind {
	case river.Columns:
		return p.columns(class.Name, name, argument)
	case river.Branches:
		return p.branches(class.Name, name, argument)
	case river.Renamings:
		return p.renamings(class.Name, name, argument)
	case river.Functions:
		return p.functions(class, name, argument)
	default:
		return p.statistics(class, name, argument)
	}
}

func (p *specParser) columns(class string, name, argument *yaml.Node) []string {
	if absent(argument) || argument.Kind != yaml.SequenceNode || len(argument.Content) == 0 {
		p.fail(name, "%[1]s takes a list of columns, as in {%[1]s: [island]}", class)
		return nil
	}
	var out []string
	for _, e := range argument.Content {
		out = append(out, p.text(e, class+": a column"))
	}
	return out
}

func (p *specParser) branches(class string, name, argument *yaml.Node) [][]river.Step {
	if absent(argument) || argument.Kind != yaml.SequenceNode || len(argument.Content) == 0 {
		p.fail(name, "%s takes a list of branches, each a step or a list of steps", class)
		return nil
	}
	var out [][]river.Step
	for _, e := range argument.Content {
		out = append(out, p.steps(e, "a branch of "+class))
	}
	return out
}

// statistics reads a mapping of columns to statistics. It is sorted by column,
// for the order of a YAML mapping must not decide anything.
func (p *specParser) statistics(class *river.Class, name, argument *yaml.Node) []river.Statistic {
	if absent(argument) || argument.Kind == yaml.MappingNode && len(argument.Content) == 0 {
		p.fail(name, "%[1]s takes a statistic for each column, as in {%[1]s: {sex: Mode}}", class.Name)
		return nil
	}
	m, _ := p.mapping(argument, class.Name, nil)
	var out []river.Statistic
	for _, e := range m.entries {
		out = append(out, p.statistic(&class.Params[0], class.Name+": "+e.key.Value, e))
	}
	slices.SortFunc(out, func(a, b river.Statistic) int { return strings.Compare(a.Column, b.Column) })
	return out
}

// renamings reads a mapping of columns to their new names, sorted by column as
// well.
func (p *specParser) renamings(class string, name, argument *yaml.Node) []river.Renaming {
	if absent(argument) || argument.Kind == yaml.MappingNode && len(argument.Content) == 0 {
		p.fail(name, "%[1]s takes a new name for each column, as in {%[1]s: {sex: gender}}", class)
		return nil
	}
	m, _ := p.mapping(argument, class, nil)
	var out []river.Renaming
	for _, e := range m.entries {
		out = append(out, river.Renaming{Column: e.key.Value, Name: p.word(e.value, class+": "+e.key.Value)})
	}
	slices.SortFunc(out, func(a, b river.Renaming) int { return strings.Compare(a.Column, b.Column) })
	return out
}

// functions reads a mapping of new columns to functions, sorted by column as
// well.
func (p *specParser) functions(class *river.Class, name, argument *yaml.Node) []river.Function {
	if absent(argument) || argument.Kind == yaml.MappingNode && len(argument.Content) == 0 {
		p.fail(name, "%[1]s takes a function for each new column, as in {%[1]s: {hour: {hour: moment}}}", class.Name)
		return nil
	}
	m, _ := p.mapping(argument, class.Name, nil)
	var out []river.Function
	for _, e := range m.entries {
		what := class.Name + ": " + e.key.Value
		if n := len(e.key.Value); n == 0 || n > 64 {
			p.fail(e.key, "%s: the name of a column has 1 to 64 bytes", class.Name)
		}
		out = append(out, p.function(class.Params[0].Choices, what, e))
	}
	slices.SortFunc(out, func(a, b river.Function) int { return strings.Compare(a.Output, b.Output) })
	return out
}

// function reads a function's name, and its arguments: a list of columns and of
// numbers, or one column alone.
func (p *specParser) function(known []string, what string, e entry) river.Function {
	out := river.Function{Output: e.key.Value}
	if e.value.Kind != yaml.MappingNode || len(e.value.Content) != 2 {
		p.fail(
			e.value, "%s takes one function with its columns, as in {ratio: [a, b]}; known: %s", what,
			strings.Join(known, ", "),
		)
		return out
	}
	name, argument := e.value.Content[0], e.value.Content[1]
	out.Name = p.choice(name, what, known)
	arguments := []*yaml.Node{argument}
	if argument.Kind == yaml.SequenceNode {
		arguments = argument.Content
	}
	for _, a := range arguments {
		if tag := a.ShortTag(); tag != "!!int" && tag != "!!float" {
			out.Columns = append(out.Columns, p.text(a, what+": a column"))
		} else if x, ok := p.double(a, what); ok && max(x, -x) > river.MaxMagnitude {
			p.fail(a, "%s: %s is beyond %g", what, a.Value, river.MaxMagnitude)
		} else {
			out.Numbers = append(out.Numbers, x)
		}
	}
	return out
}

// statistic reads what stands beside one column: a statistic's name, or a number.
func (p *specParser) statistic(param *river.Param, what string, e entry) river.Statistic {
	out := river.Statistic{Column: e.key.Value}
	if tag := e.value.ShortTag(); tag != "!!int" && tag != "!!float" {
		out.Name = p.choice(e.value, what, param.Choices)
		return out
	}
	x, ok := p.double(e.value, what)
	if ok && (x < param.Min || x > param.Max) {
		p.fail(e.value, "%s must be from %s to %s", what, river.Shortest(param.Min), river.Shortest(param.Max))
	}
	out.Name, out.Value = river.Constant, x
	return out
}

// hint helps if you write a name as Python imports it, or in another case:
// preprocessing.OneHotEncoder, one_hot_encoder, stats.Mean().
func hint(name string, known []string) string {
	last := strings.TrimSuffix(name[strings.LastIndexByte(name, '.')+1:], "()")
	switch last {
	case "TransformerUnion":
		return `; River's TransformerUnion and + are "union" here`
	case "Pipeline":
		return "; River's Pipeline and | are a list of steps here"
	}
	if strings.ContainsAny(name, "|+") {
		return "; River's A | B is a list of steps here, as in [A, B], and A + B is {union: [A, B]}"
	}
	for _, k := range known {
		if strings.EqualFold(strings.ReplaceAll(last, "_", ""), k) {
			return "; write " + k
		}
	}
	if near, ok := nearest[last]; ok && slices.Contains(known, near) {
		return "; River's " + last + " is not here, the nearest is " + near
	}
	return ""
}

// nearest are classes of River that Lockstep does not have, with the nearest
// that it has.
var nearest = map[string]string{
	"ALMAClassifier": "PAClassifier", "AdaptiveStandardScaler": "StandardScaler",
	"RobustScaler":       "StandardScaler",
	"OneVsOneClassifier": "OneVsRestClassifier", "OutputCodeClassifier": "OneVsRestClassifier",
	"BayesianLinearRegression": "LinearRegression",
	"HoeffdingTreeClassifier":  "GaussianNB", "HoeffdingAdaptiveTreeClassifier": "GaussianNB", "ExtremelyFastDecisionTreeClassifier": "GaussianNB",
	"ARFClassifier": "GaussianNB", "AMFClassifier": "GaussianNB", "SRPClassifier": "GaussianNB", "KNNClassifier": "GaussianNB",
	"HoeffdingTreeRegressor": "LinearRegression", "HoeffdingAdaptiveTreeRegressor": "LinearRegression", "ARFRegressor": "LinearRegression",
	"AMFRegressor": "LinearRegression", "KNNRegressor": "LinearRegression",
	"Agg": "TargetAgg", "Momentum": "SGD", "NesterovMomentum": "SGD", "AdaMax": "Adam", "AMSGrad": "Adam", "Nadam": "Adam",
	"AdaBound": "Adam", "AdaDelta": "RMSProp", "FTRLProximal": "AdaGrad",
}

// canonicalSteps writes steps as the contract has them: one on each line, those
// of a branch indented under it.
func canonicalSteps(b *bytes.Buffer, steps []river.Step, indent string) {
	for i := range steps {
		s := &steps[i]
		fmt.Fprintf(b, "%s%s%s\n", indent, s.Class.Name, s.Canonical(nil))
		for _, arg := range s.Args {
			branches, _ := arg.([][]river.Step)
			for _, branch := range branches {
				b.WriteString(indent + "  branch\n")
				canonicalSteps(b, branch, indent+"    ")
			}
		}
	}
}
