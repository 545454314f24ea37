package model

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Genesis is the first message of a log.
type Genesis struct {
	Incarnation string `json:"incarnation"` // random; tells this log from any other under its name
	Contract    string `json:"contract"`    // hex of Spec.Contract
	Spec        string `json:"spec"`        // the spec's YAML, for people and for offline replay
}

// Both stand in receipts, and so in replies, headers and terminals: neither
// has a dot, a space, a quote or a control character.
var (
	incarnation = regexp.MustCompile(`^[!#-\-/-\[\]-~]{1,64}$`)
	contract    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// NewGenesis makes the first message of a log for a spec. The incarnation is
// a random text of the caller's.
func NewGenesis(s *Spec, incarnation string) []byte {
	contract := s.Contract()
	data, err := json.Marshal(Genesis{incarnation, hex.EncodeToString(contract[:]), string(s.YAML)})
	if err != nil {
		panic(err) // strings always marshal
	}
	return data
}

// ParseGenesis reads the first message of a log.
func ParseGenesis(data []byte) (*Genesis, error) {
	var g Genesis
	if err := json.Unmarshal(data, &g); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if !incarnation.MatchString(g.Incarnation) || !contract.MatchString(g.Contract) {
		return nil, fmt.Errorf("genesis: incarnation or contract is missing, or not well-formed")
	}
	return &g, nil
}

// ParseSpec reads the spec that the log was made with.
func (g *Genesis) ParseSpec() (*Spec, error) {
	s, err := ParseSpec([]byte(g.Spec))
	if err != nil {
		return nil, fmt.Errorf("the log's spec: %w", err)
	}
	s.Logged = true
	return s, nil
}

// Receipt names the state that an answer came from: replaying that log under
// that contract to that sequence gives the same state chain, and the same
// answer bit for bit.
type Receipt struct {
	Contract    string // the first 16 hex digits
	Incarnation string
	Seq         uint64
	StateChain  string // the first 32 hex digits
}

// Receipt is the receipt of the present state.
func (m *Model) Receipt() Receipt {
	return Receipt{hex.EncodeToString(m.contract[:8]), m.incarnation, m.seq, hex.EncodeToString(m.stateChain[:16])}
}

func (r Receipt) String() string {
	return fmt.Sprintf("r1.%s.%s.%d.%s", r.Contract, r.Incarnation, r.Seq, r.StateChain)
}

// ParseReceipt reads a receipt's text.
func ParseReceipt(text string) (Receipt, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 5 || parts[0] != "r1" || len(parts[1]) != 16 || len(parts[4]) != 32 {
		return Receipt{}, fmt.Errorf("not a receipt: %q (a receipt is r1.CONTRACT.INCARNATION.SEQ.CHAIN)", text)
	}
	seq, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil {
		return Receipt{}, fmt.Errorf("not a receipt: %q: its sequence is no number", text)
	}
	return Receipt{parts[1], parts[2], seq, parts[4]}, nil
}
