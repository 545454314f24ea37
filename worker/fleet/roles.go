package fleet

import (
	"slices"

	"lockstep/bus"
)

// Role is a set of rights: the subjects that its users publish and subscribe
// to, beside their own inboxes.
type Role struct {
	Name      string
	May       string // what for
	Publish   []string
	Subscribe []string
}

// Roles are the rights of the users of a model, each role with the least that
// its work takes. What is not listed is refused.
//
// No role has allow_responses: a server takes any subject for a reply's, so
// that anyone who may ask could have a worker write where only the worker may.
// Answers go to inboxes, all of which begin with _INBOX.
func Roles(name string) []Role {
	heartbeats, checkpoints, snapshots := bucketNames(name)
	log := bus.StreamName(name)
	counts, counted := CountsName(name)
	verdicts, reported := VerdictsName(name)
	streams := []string{log, verdicts, counts, "KV_" + heartbeats, "KV_" + checkpoints, "OBJ_" + snapshots}
	api := func(call string, streams ...string) (out []string) {
		for _, s := range streams {
			out = append(out, "$JS.API."+call+"."+s)
		}
		return out
	}
	below := func(subjects []string) (out []string) {
		for _, s := range subjects {
			out = append(out, s, s+".>")
		}
		return out
	}
	subjects := func(verbs ...string) (out []string) {
		for _, v := range verbs {
			out = append(out, name+"."+v)
		}
		return out
	}
	ask := subjects("predict", "explain", "status")
	// Reading a stream: whole, message by message, or through a consumer.
	consume := func(streams ...string) []string {
		return slices.Concat(
			below(api("CONSUMER.CREATE", streams...)), below(api("CONSUMER.MSG.NEXT", streams...)),
			below(api("CONSUMER.DELETE", streams...)),
		)
	}
	read := slices.Concat(api("STREAM.INFO", streams...), below(api("DIRECT.GET", streams...)))

	return []Role{
		{"predictor", "ask: predict, explain, status", ask, nil},
		{"teacher", "ask, teach, and publish learn events", append(slices.Clone(ask), subjects("teach", "learn")...), nil},
		{"worker", "serve: exactly what a worker does",
			slices.Concat(
				subjects("learn", "ctl.checkpoint", "advisory.>"), []string{counted, reported, "_INBOX.>"},
				[]string{"$KV." + heartbeats + ".>", "$KV." + checkpoints + ".>", "$O." + snapshots + ".>"},
				api("STREAM.INFO", streams...),
				api(
					"DIRECT.GET", log, counts+".>", "KV_"+heartbeats, "KV_"+checkpoints, "KV_"+checkpoints+".>",
					"OBJ_"+snapshots+".>",
				),
				api(
					"CONSUMER.CREATE", log+".>", "OBJ_"+snapshots+".>",
				),
				api("CONSUMER.MSG.NEXT", log+".>"), api("CONSUMER.DELETE", log+".>", "OBJ_"+snapshots+".>"),
				[]string{"$JS.FC.OBJ_" + snapshots + ".>"},
				api("STREAM.PURGE", "KV_"+heartbeats, "KV_"+checkpoints, "OBJ_"+snapshots),
			),
			append(subjects("predict", "explain", "teach", "status"), "$SRV.>")},
		{"observer", "look: status, verdicts, the log, what JetStream says of them",
			slices.Concat(
				subjects("status"), []string{"$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES"}, read,
				consume(log, verdicts, "OBJ_"+snapshots),
				[]string{"$JS.FC.OBJ_" + snapshots + ".>", "$JS.FC." + log + ".>", "$JS.FC." + verdicts + ".>"},
				api("CONSUMER.LIST", streams...), api("CONSUMER.NAMES", streams...),
				below(api("CONSUMER.INFO", streams...)),
			),
			append(subjects("advisory.>"), reported)},
		{"operator", "make, change, compact, back up, restore and delete what the model keeps",
			slices.Concat(
				subjects(">"), []string{"$SRV.>", "$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES"},
				api(
					"STREAM.*",
					streams...),
				api("STREAM.MSG.*", streams...), api("STREAM.LEADER.STEPDOWN", streams...),
				api("STREAM.PEER.REMOVE", streams...), below(api("DIRECT.GET", streams...)),
				below(
					api("CONSUMER.*", streams...),
				),
				below(api("CONSUMER.MSG.NEXT", streams...)), below(api("CONSUMER.DURABLE.CREATE", streams...)),
				restoreSubjects(
					streams,
				),
				[]string{"$JS.FC.>", "$KV." + heartbeats + ".>", "$KV." + checkpoints + ".>", "$O." + snapshots + ".>"},
			),
			append(subjects("advisory.>"), reported, "$JS.EVENT.ADVISORY.>")},
	}
}

func restoreSubjects(streams []string) (out []string) {
	for _, s := range streams {
		out = append(out, "$JS.SNAPSHOT.ACK."+s+".>", "$JS.SNAPSHOT.RESTORE."+s+".>")
	}
	return out
}

// InboxPrefix begins the inboxes of a user. Only that user hears what is
// answered there.
func InboxPrefix(user string) string { return "_INBOX." + user }
