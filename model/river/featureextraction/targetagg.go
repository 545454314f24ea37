// Package featureextraction has the steps that make features of others.
package featureextraction

import (
	"strings"

	"lockstep/model/river"
	"lockstep/model/river/stats"
)

// maxGroups bounds what one step keeps statistics of.
const maxGroups = 1 << 20

// TargetAgg gives a statistic of the labels of the event's group: the events
// that had the same values in some columns. As in River, it hands on what it
// had learned before the event, and learns the event afterwards.
//
// Groups are made by events that are learned, and not by predictions. A group
// that was never learned has the statistic of nothing, 0.
//
// Source: Micci-Barreca, A Preprocessing Scheme for High-Cardinality
// Categorical Attributes, 2001.
var TargetAgg = &river.Class{
	Name:   "TargetAgg",
	Source: "river.feature_extraction.TargetAgg",
	Summary: "A running statistic of the labels of those events that had the same values in some columns: target " +
		"encoding.",
	Task: river.Transformation,
	Params: []river.Param{
		{Name: "by", Kind: river.ColumnList, Summary: "the columns, categories, whose values make a group"},
		{Name: "how", Kind: river.Nested, Task: river.Statistical, Summary: "the statistic"},
		{Name: "target_name", Kind: river.Word, Default: "y", Summary: "what the label is called in the feature's name"},
	},
	Build: buildTargetAgg,
}

func buildTargetAgg(b *river.Builder) {
	by, statistic := river.Arg[[]string](b.Step(), "by"), stats.Of(river.Arg[river.Step](b.Step(), "how"))
	t := &targetAgg{statistic: statistic, index: map[uint64]int32{}, out: b.NewSlot(river.NumberColumn)}
	groups := uint64(1)
	for _, name := range by {
		i := b.Find(name)
		if i < 0 {
			continue
		}
		col := &b.In[i]
		if col.Kind != river.CategoryColumn {
			b.Fail("column %q is %s, and groups are made of categories", col.Name, col.Kind)
			continue
		}
		t.by = append(t.by, groupColumn{col.Slot, groups, uint64(col.MaxValues) + 1, col.Vocab})
		if groups *= uint64(col.MaxValues) + 1; groups > maxGroups {
			b.Fail("by %s there may be more than %d groups; lower the columns' max_values", strings.Join(by, ", "), maxGroups)
			return
		}
	}
	if !b.NumericTarget() {
		return
	}
	t.most = groups
	name := river.Arg[string](b.Step(), "target_name") + "_" + statistic.Name + "_by_" + strings.Join(by, "_and_")
	out := river.Column{Kind: river.NumberColumn, Name: name, Slot: t.out}
	out.Min, out.Max = statistic.Range(b.Limits().TargetMin, b.Limits().TargetMax)
	t.name = name
	b.Out = []river.Column{out}
	b.AddTransformer(t, 8+int(groups)*(8+statistic.Bytes))
}

type targetAgg struct {
	by        []groupColumn
	name      string
	out       int
	statistic stats.Statistic
	most      uint64 // groups

	groups []group          // in the order in which they were first learned
	index  map[uint64]int32 // by key: where in groups; derived
}

type groupColumn struct {
	slot   int
	stride uint64
	size   uint64 // values, null included
	vocab  *river.Vocab
}

type group struct {
	key uint64 // made of the values' numbers, null is 0
	of  stats.Univariate
}

// Supervised says that it learns from the label; see river.Supervised.
func (t *targetAgg) Supervised() {}

// key is the group of an event; false if a value was never learned.
func (t *targetAgg) key(f *river.Frame) (key uint64, ok bool) {
	for i := range t.by {
		id := f.Categories[t.by[i].slot].ID
		switch {
		case id == river.Null:
		case id < 0:
			return 0, false
		default:
			key += uint64(id+1) * t.by[i].stride
		}
	}
	return key, true
}

func (t *targetAgg) Learn(f *river.Frame) {
	key, ok := t.key(f)
	if !ok {
		return // it is in no vocabulary: the fold has no room for it
	}
	i, known := t.index[key]
	if !known {
		i = int32(len(t.groups))
		t.groups = append(t.groups, group{key, t.statistic.New()})
		t.index[key] = i
	}
	t.groups[i].of.Update(f.Y)
}

func (t *targetAgg) Transform(f *river.Frame) {
	f.Numbers[t.out] = river.Number{}
	if key, ok := t.key(f); ok {
		if i, known := t.index[key]; known {
			f.Numbers[t.out].V = t.groups[i].of.Get()
		}
	}
}

func (t *targetAgg) Code(s *river.State) {
	n := s.Length(len(t.groups), 8+t.statistic.Bytes)
	if s.Reading() {
		t.groups, t.index = make([]group, n), make(map[uint64]int32, n)
	}
	for i := range t.groups {
		g := &t.groups[i]
		s.U64(&g.key)
		if s.Reading() {
			if _, twice := t.index[g.key]; twice || g.key >= t.most || !t.exists(g.key) {
				s.Fail()
				t.groups, t.index = nil, map[uint64]int32{}
				return
			}
			t.index[g.key], g.of = int32(i), t.statistic.New()
		}
		g.of.Code(s)
	}
}

// exists reports whether the values of a group were learned.
func (t *targetAgg) exists(key uint64) bool {
	for i := len(t.by) - 1; i >= 0; i-- {
		if key/t.by[i].stride > uint64(len(t.by[i].vocab.Texts)) {
			return false
		}
		key %= t.by[i].stride
	}
	return true
}

func (t *targetAgg) Report(r river.Report) {
	groups := r.In("groups").In(t.name)
	for _, g := range t.groups {
		var values []string
		for _, col := range t.by {
			value := "None"
			if id := g.key / col.stride % col.size; id > 0 {
				value = col.vocab.Texts[id-1]
			}
			values = append(values, value)
		}
		groups.Set(strings.Join(values, ", "), g.of.Get())
	}
}
