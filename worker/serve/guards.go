package serve

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"lockstep/bus"
	"lockstep/model"
)

// headerStream names the stream that a publisher means.
const headerStream = "Nats-Expected-Stream"

// JetStream acts upon headers of a publish, and a teach is one: each is
// honoured, or the teach is refused.
var (
	// passedHeaders are guards that the server checks as it stores the event.
	passedHeaders = []string{
		"Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject",
	}
	// harmlessHeaders ask for nothing: the server adds them to a request, or to
	// a message that it delivers or republishes.
	harmlessHeaders = []string{
		headerID, headerStream, "Nats-Request-Info", "Nats-Trace-Dest", "Nats-Trace-Hop", "Nats-Trace-Origin-Account", "Nats-Trace-Only",
		"Nats-Stream", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Subject", "Nats-Last-Sequence", "Nats-Msg-Size",
	}
)

// guards are those of a teach. The error names each header that a teach does
// not support; one that is not known may be a later server's.
func guards(req bus.Request) (out []bus.Guard, err error) {
	var bad []model.Problem
	for _, name := range req.HeaderNames() {
		switch {
		case !strings.HasPrefix(strings.ToLower(name), "nats-"), slices.Contains(harmlessHeaders, name):
		case slices.Contains(passedHeaders, name):
			out = append(out, bus.Guard{Header: name, Value: req.Header(name)})
		default:
			bad = append(bad, model.Problem{
				Loc: []any{"header", name}, Type: "header_not_supported",
				Msg: fmt.Sprintf(
					"A teach does not support the header %s: leave it out, or publish to the log's subject",
					strconv.Quote(name),
				),
			})
		}
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b model.Problem) int { return strings.Compare(a.Msg, b.Msg) })
		return nil, &model.InvalidError{Problems: bad}
	}
	return out, nil
}
