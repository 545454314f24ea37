package model

import (
	"fmt"
	"strings"

	"lockstep/model/river"
)

// maxLabels bounds the confusion matrix, which grows with its square.
const maxLabels = 1024

// load brings a declared input into the frame.
type load struct {
	input int
	slot  int // of the frame's Numbers or Categories, by the input's type
}

// compile checks that every step of the spec's pipeline gets what it supports,
// and builds them. Unbounded is for tests of what River does past all bounds.
func (m *Model) compile(unbounded bool) error {
	s := m.spec
	problems := s.collisions()
	if s.Label.MaxValues > maxLabels {
		problems = append(
			problems,
			fmt.Sprintf("label %s: max_values is %d, the most is %d", s.Label.Name, s.Label.MaxValues, maxLabels),
		)
	}
	limits := river.Limits{
		Classes: s.Label.MaxValues, TargetMin: s.Label.Min, TargetMax: s.Label.Max, Unbounded: unbounded,
	}
	switch s.Label.Type {
	case Category:
		limits.Label, limits.Tasks = "a category", []river.Task{river.Classification}
	case Boolean:
		limits.Classes, limits.TargetMin, limits.TargetMax = 2, 0, 1
		limits.Label, limits.Tasks = "a boolean", []river.Task{river.BinaryClassification, river.Classification}
	case Number:
		limits.Label, limits.Tasks = "a number", []river.Task{river.Regression}
	}
	program, more := river.Compile(s.Pipeline, limits, m.inputs)
	problems = append(problems, more...)
	if len(problems) == 0 {
		m.program = program
		m.frame = program.NewFrame()
		return nil
	}
	for i := range problems {
		problems[i] = printable(problems[i])
	}
	return fmt.Errorf("spec %s does not compile:\n  %s", printable(s.Name), strings.Join(problems, "\n  "))
}

// inputs are the columns of the declared inputs, in their order.
func (m *Model) inputs(newSlot func(river.ColumnKind) int) []river.Column {
	var columns []river.Column
	for i := range m.spec.Inputs {
		f := &m.spec.Inputs[i]
		col := river.Column{Kind: river.NumberColumn, Name: f.Name, Nullable: f.Nullable, Min: f.Min, Max: f.Max}
		switch f.Type {
		case Category:
			col.Kind, col.Vocab, col.MaxValues, col.MaxBytes = river.CategoryColumn, &m.vocabs[i], f.MaxValues, f.MaxBytes
		case Timestamp:
			col.Kind = river.TimestampColumn
		case Text:
			col.Kind, col.MaxBytes = river.TextColumn, f.MaxBytes
		}
		col.Slot = newSlot(col.Kind)
		m.loads = append(m.loads, load{input: i, slot: col.Slot})
		columns = append(columns, col)
	}
	return columns
}
