package fleet

import (
	"encoding/hex"
	"strings"

	"lockstep/model"
)

// Identity names what a replica folds, and how it encodes its state. Replicas
// of one identity must be equal at equal sequences; of others nothing can be
// said. Heartbeats, attestations, snapshots and statuses carry it, and Differs
// is the one place where two are compared.
type Identity struct {
	Incarnation string `json:"incarnation"` // of the log; empty before its genesis was read
	Contract    string `json:"contract"`    // hexadecimal
	Encoding    string `json:"encoding"`    // of the states that digests cover
}

// IdentityOf returns what a model folds.
func IdentityOf(m *model.Model) Identity {
	return Identity{m.Incarnation(), ContractOf(m.Spec()), model.Encoding}
}

// GenesisIdentity returns what a log's genesis says of anyone who folds it: all
// but the encoding.
func GenesisIdentity(g *model.Genesis) Identity {
	return Identity{Incarnation: g.Incarnation, Contract: g.Contract}
}

// ContractOf returns a spec's contract as identities have it.
func ContractOf(s *model.Spec) string {
	sum := s.Contract()
	return hex.EncodeToString(sum[:])
}

// Difference is in what two identities differ: a set of the values below.
type Difference uint8

// The differences.
const (
	OtherIncarnation Difference = 1 << iota // another log, or the same one made again
	OtherContract                           // another spec, or other semantics
	OtherEncoding                           // another version's encoding of the same states
)

// Has reports whether d contains one of the differences of other.
func (d Difference) Has(other Difference) bool { return d&other != 0 }

func (d Difference) String() string {
	var out []string
	for i, name := range []string{"log", "contract", "encoding"} {
		if d.Has(1 << i) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}

// Differs returns in what two identities differ; 0 means that states of the
// two must be equal. A field that is empty in one of them is not known yet,
// and counts as equal: a replica that begins has read no genesis, and is a
// peer all the same.
func (i Identity) Differs(other Identity) (d Difference) {
	if differ(i.Incarnation, other.Incarnation) {
		d |= OtherIncarnation
	}
	if differ(i.Contract, other.Contract) {
		d |= OtherContract
	}
	if differ(i.Encoding, other.Encoding) {
		d |= OtherEncoding
	}
	return d
}

func differ(a, b string) bool { return a != b && a != "" && b != "" }
