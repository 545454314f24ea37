package model

// Values are the texts that an input had in learned events, in the order they
// were first learned; none for a number. The caller may keep them, and must
// not change them.
func (m *Model) Values(input int) []string {
	texts := m.vocabs[input].Texts
	return texts[:len(texts):len(texts)]
}

// Vocabulary is how full the vocabulary of a category is: an input's or the
// label's.
type Vocabulary struct {
	Name   string `json:"name"`
	Values int    `json:"values"`     // that were learned
	Most   int    `json:"max_values"` // that there is room for
}

// Vocabularies are those of the categories, in the order of the spec, the
// label's last. An input that lists its values has none that can be full.
func (m *Model) Vocabularies() []Vocabulary {
	var out []Vocabulary
	for i := range m.spec.Inputs {
		if f := &m.spec.Inputs[i]; f.Type == Category && len(f.Values) == 0 {
			out = append(out, Vocabulary{f.Name, len(m.vocabs[i].Texts), f.MaxValues})
		}
	}
	if f := &m.spec.Label; f.Type == Category && len(f.Values) == 0 {
		out = append(out, Vocabulary{f.Name, len(m.labels.Texts), f.MaxValues})
	}
	return out
}
