package river

// Vocab numbers texts from 0, in the order in which they were first learned.
type Vocab struct {
	Texts []string         // by number; to be read only
	ids   map[string]int32 // by text; looked up, never ranged over
}

// Numbers that stand for no text of a Vocab.
const (
	Unknown int32 = -1 // a text that was never learned
	Null    int32 = -2 // no text at all
)

// NewVocab makes an empty Vocab.
func NewVocab() Vocab { return Vocab{ids: map[string]int32{}} }

// Find returns a text's number, or Unknown. It does not allocate.
func (v *Vocab) Find(text []byte) int32 {
	if id, ok := v.ids[string(text)]; ok {
		return id
	}
	return Unknown
}

// Add gives a new text the next number.
func (v *Vocab) Add(text string) int32 {
	id := int32(len(v.Texts))
	v.Texts = append(v.Texts, text)
	v.ids[text] = id
	return id
}

// Code codes the texts.
func (v *Vocab) Code(s *State) {
	n := s.Length(len(v.Texts), 8)
	if !s.reading {
		for i := range v.Texts {
			s.Text(&v.Texts[i])
		}
		return
	}
	*v = NewVocab()
	for range n {
		var text string
		s.Text(&text)
		if _, twice := v.ids[text]; twice {
			s.Fail()
			return
		}
		v.Add(text)
	}
}
