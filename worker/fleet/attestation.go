package fleet

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"lockstep/model"
)

// CheckpointEvery is the distance between the checkpoints that every replica
// attests without being asked, in sequences.
const CheckpointEvery = 4096

// IsCheckpoint reports whether every replica attests at a message.
func IsCheckpoint(msg *model.Message) bool {
	return msg.Seq%CheckpointEvery == 0 || msg.Subject == model.SubjectCheckpoint
}

// WantsSnapshot reports whether a checkpoint's message asks the fleet to write
// a snapshot.
func WantsSnapshot(msg *model.Message) bool {
	var ask struct {
		Snapshot bool `json:"snapshot"`
	}
	return msg.Subject == model.SubjectCheckpoint && json.Unmarshal(msg.Data, &ask) == nil && ask.Snapshot
}

const keyAttest = "attest" // attestations are at attest.SEQ.REPLICA

// Attestation is what a replica says of its state at a checkpoint.
type Attestation struct {
	Replica string `json:"replica"`
	Seq     uint64 `json:"seq"`
	Identity
	LogChain   string `json:"log_chain"`
	StateChain string `json:"state_chain"`
	Digest     string `json:"digest"`
	Boot       string `json:"boot,omitempty"`    // a nonce of the process
	Fold       int    `json:"fold"`              // how often this process had begun to fold again
	Arbiter    bool   `json:"arbiter,omitempty"` // by a tool that folds the log to settle a dispute, and serves nothing
}

// Attest returns what a model's state attests, without the replica's own
// fields.
func Attest(m *model.Model) Attestation {
	digest := m.Digest()
	a := Attestation{Seq: m.Seq(), Identity: IdentityOf(m), Digest: hex.EncodeToString(digest[:])}
	a.LogChain, a.StateChain = Chains(m)
	return a
}

// Chains returns a model's log chain and state chain in hexadecimal.
func Chains(m *model.Model) (log, state string) {
	logChain, stateChain := m.LogChain(), m.StateChain()
	return hex.EncodeToString(logChain[:]), hex.EncodeToString(stateChain[:])
}

// AttestKey is the key below which the attestations of a checkpoint are, each
// under its replica's name.
func AttestKey(seq uint64) string { return fmt.Sprintf("%s.%020d", keyAttest, seq) }

// Comparable reports whether two attestations are of one checkpoint and one
// identity, so that they must be the same.
func (a Attestation) Comparable(b Attestation) bool {
	return a.Seq == b.Seq && a.Differs(b.Identity) == 0
}

// Same reports whether two comparable attestations agree.
func (a Attestation) Same(b Attestation) bool {
	return a.LogChain == b.LogChain && a.StateChain == b.StateChain && a.Digest == b.Digest
}

// Attestations reads those of one checkpoint, sorted by replica.
func Attestations(ctx context.Context, kv KV, seq uint64) ([]Attestation, error) {
	return attestations(ctx, kv, AttestKey(seq))
}

// AllAttestations reads those of every checkpoint, sorted by sequence and
// replica.
func AllAttestations(ctx context.Context, kv KV) ([]Attestation, error) {
	return attestations(ctx, kv, keyAttest)
}

func attestations(ctx context.Context, kv KV, key string) ([]Attestation, error) {
	return read(ctx, kv, key, checkAttestation)
}

// PutAttestation writes an attestation over an earlier one of the same replica
// at the same checkpoint.
func PutAttestation(ctx context.Context, kv KV, a Attestation) error {
	value, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return kv.Put(ctx, AttestKey(a.Seq)+"."+a.Replica, value)
}

// RemoveAttestation takes back what one replica attested at a checkpoint.
func RemoveAttestation(ctx context.Context, kv KV, seq uint64, replica string) error {
	return kv.Remove(ctx, AttestKey(seq)+"."+replica)
}

// RemoveAttestations removes all attestations of a checkpoint.
func RemoveAttestations(ctx context.Context, kv KV, seq uint64) error {
	return kv.Remove(ctx, AttestKey(seq))
}
