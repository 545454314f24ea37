package river

import (
	"fmt"
	"strconv"
	"strings"
)

// Param declares a parameter of a class. The parser of specs, the contract's
// canonical text, the help, the documentation's table and the generator of
// traces all read this declaration.
type Param struct {
	Name    string // River's keyword
	Kind    Kind
	Default any     // River's, of the kind's type; nil if it must be given
	Min     float64 // of a Float, and of a Constant among Statistics, inclusive
	Max     float64
	Whole   bool     // a Float that has no fraction
	Choices []string // of Statistics and Functions: the names that there are
	Task    Task     // of a Nested: what the class is for; of a Float: a class that may stand in its place
	Summary string
}

// Kind is the type of a parameter.
type Kind uint8

// The kinds, with the Go type of an argument. The last five are written in a
// spec without their name, as the class's only argument.
const (
	Float      Kind = iota + 1 // float64
	Bool                       // bool
	Nested                     // Step: a class with arguments of its own
	Word                       // string
	ColumnList                 // []string, one at least
	Columns                    // []string, one at least
	Branches                   // [][]Step, one at least and none of them empty
	Statistics                 // []Statistic, by column, one at least
	Renamings                  // []Renaming, by column, one at least
	Functions                  // []Function, by the column that each makes, one at least
)

// Alone reports whether a parameter of this kind is written as the class's only
// argument.
func (k Kind) Alone() bool { return k >= Columns }

// Statistic is a column and the statistic that is kept of it.
type Statistic struct {
	Column, Name string
	Value        float64 // of a Constant
}

// Constant is the name of a statistic that is the same number always. A spec has
// the number in its place.
const Constant = "Constant"

// Renaming is a column and its new name.
type Renaming struct{ Column, Name string }

// Function is a column that a declared function makes of others, with numbers.
type Function struct {
	Output, Name string
	Columns      []string
	Numbers      []float64
}

// FloatParam declares a number between two bounds, both inclusive.
func FloatParam(name string, value, least, most float64, summary string) Param {
	return Param{Name: name, Kind: Float, Default: value, Min: least, Max: most, Summary: summary}
}

// WholeParam declares a whole number between two bounds, both inclusive.
func WholeParam(name string, value, least, most float64, summary string) Param {
	p := FloatParam(name, value, least, most, summary)
	p.Whole = true
	return p
}

// BoolParam declares a switch.
func BoolParam(name string, value bool, summary string) Param {
	return Param{Name: name, Kind: Bool, Default: value, Summary: summary}
}

// Defaults are the default arguments of a class; nil for what must be given.
func (c *Class) Defaults() []any {
	args := make([]any, len(c.Params))
	for i := range c.Params {
		args[i] = c.Params[i].Default
	}
	return args
}

// Range describes which values a parameter takes.
func (p *Param) Range() string {
	switch p.Kind {
	case Float:
		text := fmt.Sprintf("%s to %s", Shortest(p.Min), Shortest(p.Max))
		if p.Whole {
			text = "whole, " + text
		}
		if p.Task != 0 {
			text += ", or a " + p.Task.String()
		}
		return text
	case Bool:
		return "true, false"
	case Nested:
		return "a class: " + p.Task.String()
	case Word:
		return "a text"
	case Columns, ColumnList:
		return "columns"
	case Branches:
		return "lists of steps"
	case Renamings:
		return "by column: a text"
	case Functions:
		return "by new column: " + strings.Join(p.Choices, ", ")
	default:
		return "by column: " + strings.Join(p.Choices, ", ") + ", or a number"
	}
}

// AppendNumber appends a double with the fewest digits that read back as the
// same double, as ECMAScript spells it.
func AppendNumber(dst []byte, v float64) []byte {
	format := byte('f')
	if v != 0 && (-1e-6 < v && v < 1e-6 || v >= 1e21 || v <= -1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// Shortest is AppendNumber as a text.
func Shortest(v float64) string { return string(AppendNumber(nil, v)) }

// Canonical appends a step's arguments as the contract has them: each as
// " name=value", a list of columns as quoted names, in the order of the
// declaration. Branches are not among them: they are lines of their own.
func (s *Step) Canonical(dst []byte) []byte {
	for i, arg := range s.Args {
		switch p := &s.Class.Params[i]; v := arg.(type) {
		case float64:
			dst = fmt.Appendf(dst, " %s=%s", p.Name, Shortest(v))
		case bool:
			dst = fmt.Appendf(dst, " %s=%t", p.Name, v)
		case Step:
			dst = fmt.Appendf(dst, " %s=%s(", p.Name, v.Class.Name)
			dst = append(v.Canonical(dst), " )"...)
		case string:
			dst = fmt.Appendf(dst, " %s=%+q", p.Name, v)
		case []string:
			if p.Kind == ColumnList {
				dst = fmt.Appendf(dst, " %s=", p.Name)
			}
			for _, column := range v {
				dst = fmt.Appendf(dst, " %+q", column)
			}
		case []Function:
			for _, e := range v {
				dst = fmt.Appendf(dst, " %+q=%s(", e.Output, e.Name)
				for _, column := range e.Columns {
					dst = fmt.Appendf(dst, " %+q", column)
				}
				for _, x := range e.Numbers {
					dst = append(dst, " "+Shortest(x)...)
				}
				dst = append(dst, " )"...)
			}
		case []Renaming:
			for _, e := range v {
				dst = fmt.Appendf(dst, " %+q=%+q", e.Column, e.Name)
			}
		case []Statistic:
			for _, e := range v {
				dst = fmt.Appendf(dst, " %+q=%s", e.Column, e.Name)
				if e.Name == Constant {
					dst = fmt.Appendf(dst, "(%s)", Shortest(e.Value))
				}
			}
		}
	}
	return dst
}

// Arg is the argument of a parameter. It panics if the class does not declare
// it, or with another type.
func Arg[T any](s *Step, name string) T {
	for i := range s.Class.Params {
		if s.Class.Params[i].Name == name {
			return s.Args[i].(T)
		}
	}
	panic("river: " + s.Class.Name + " declares no parameter " + name)
}
