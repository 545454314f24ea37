package model

import (
	"fmt"
	"slices"
)

// replyKeys are the keys that stand, or are about to, in a reply to predict,
// teach or explain, in what verify says of one, or in the events that are sent. A spec's names stand
// beside them in one object: a label of the name of a key could not be read
// from the reply. Tests of those who write replies hold them against this
// list, so a new key is added here first.
var replyKeys = []string{
	"attributes", "detail", "duplicate", "error", "features", "id", "index", "learned", "msg_id", "predicted",
	"prior", "proba", "receipt", "reproduced", "results", "score", "seq", "state_chain", "status", "stream", "unit", "version",
}

// ReplyKeys are the names that neither an input nor the label may have.
func ReplyKeys() []string { return slices.Clone(replyKeys) }

// collisions names the spec's names that have another meaning beside them. A
// spec that a log was made with keeps its names: it was taken before the list
// had them, and its log is folded all the same.
func (s *Spec) collisions() []string {
	if s.Logged {
		return nil
	}
	var out []string
	reserved := func(what, name string) {
		if slices.Contains(replyKeys, name) {
			out = append(out, fmt.Sprintf("%s %s: the name is a key of the replies; give it another", what, name))
		}
	}
	for i := range s.Inputs {
		reserved("input", s.Inputs[i].Name)
	}
	reserved("label", s.Label.Name)
	if name := s.Label.Name; slices.ContainsFunc(s.Inputs, func(f Field) bool { return f.Name == name }) {
		out = append(out, fmt.Sprintf("label %s: an input has the same name; give one of them another", name))
	}
	return out
}
