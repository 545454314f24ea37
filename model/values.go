package model

// Values are the texts that an input had in learned events, in the order they
// were first learned; none for a number. The caller may keep them, and must
// not change them.
func (m *Model) Values(input int) []string {
	texts := m.vocabs[input].Texts
	return texts[:len(texts):len(texts)]
}
