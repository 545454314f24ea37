package model

// vocab gives texts dense numbers in the order they were first learned.
type vocab struct {
	texts []string
	ids   map[string]int32 // text to its place in texts; looked up, never ranged over
}

const (
	unknown int32 = -1 // a text that was never learned
	null    int32 = -2 // no text at all
)

func newVocab() vocab { return vocab{ids: map[string]int32{}} }

// find returns the text's number, or unknown. It does not allocate.
func (v *vocab) find(text []byte) int32 {
	if id, ok := v.ids[string(text)]; ok {
		return id
	}
	return unknown
}

// add gives a new text the next number.
func (v *vocab) add(text string) int32 {
	id := int32(len(v.texts))
	v.texts = append(v.texts, text)
	v.ids[text] = id
	return id
}

func (v *vocab) code(c *coder) {
	n := c.length(len(v.texts), 8)
	if !c.reading {
		for i := range v.texts {
			c.text(&v.texts[i])
		}
		return
	}
	*v = newVocab()
	for range n {
		var text string
		c.text(&text)
		if _, twice := v.ids[text]; twice {
			c.fail()
			return
		}
		v.add(text)
	}
}
