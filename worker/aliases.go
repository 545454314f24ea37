package worker

import (
	"lockstep/worker/fleet"
	"lockstep/worker/replica"
	"lockstep/worker/serve"
)

// What package fleet has, under its old names, until all that use it name it
// there.
type (
	Identity    = fleet.Identity
	State       = fleet.State
	Heartbeat   = fleet.Heartbeat
	Attestation = fleet.Attestation
	Snapshot    = fleet.Snapshot
	Aside       = fleet.RejectedSnapshot
	Status      = fleet.Status
	Boards      = fleet.Buckets
	Agreement   = fleet.Agreement
	Peer        = fleet.Peer
	Role        = fleet.Role
)

// The states and agreements.
const (
	Restoring    = fleet.Restoring
	Replaying    = fleet.Replaying
	Ready        = fleet.Ready
	Draining     = fleet.Draining
	Stopped      = fleet.Stopped
	Quarantined  = fleet.Quarantined
	Unknown      = fleet.Unknown
	Agrees       = fleet.Agrees
	OtherState   = fleet.OtherState
	OtherDigest  = fleet.OtherDigest
	OtherLog     = fleet.OtherLog
	Incomparable = fleet.Incomparable

	CheckpointEvery = fleet.CheckpointEvery
	HeartbeatTTL    = fleet.HeartbeatTTL
)

// The functions.
var (
	Attest          = fleet.Attest
	AttestKey       = fleet.AttestKey
	Attestations    = fleet.Attestations
	AllAttestations = fleet.AllAttestations
	Heartbeats      = fleet.Heartbeats
	SnapshotKey     = fleet.SnapshotKey
	Snapshots       = fleet.Snapshots
	Asides          = fleet.RejectedSnapshots
	Base            = fleet.Base
	Pin             = fleet.Pin
	LoadSnapshot    = fleet.LoadSnapshot
	StoreSnapshot   = fleet.StoreSnapshot
	RemoveSnapshot  = fleet.RemoveSnapshot
	Stores          = fleet.Stores
	OpenBoards      = fleet.OpenBuckets
	BindBoards      = fleet.BindBuckets
	Examine         = fleet.Examine
	Roles           = fleet.Roles
	InboxPrefix     = fleet.InboxPrefix
)

// What packages replica and serve have.
type (
	View    = replica.View
	Said    = replica.Said
	Traffic = serve.Traffic
)

// ErrContract is replica.ErrContract.
var ErrContract = replica.ErrContract

// The functions.
var (
	FoldTo  = replica.FoldTo
	Message = replica.Message
	Verbs   = serve.Verbs
	Codes   = serve.Codes
	Buckets = serve.Buckets
)
