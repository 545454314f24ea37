package printable

import (
	"context"
	"fmt"
	"log/slog"
)

// Handler is next with every text of a record escaped: its message, and the
// strings, errors and other values of its attributes. It is for handlers that
// write to a terminal; JSON needs a Writer only.
func Handler(next slog.Handler) slog.Handler { return handler{next} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, record slog.Record) error {
	out := slog.NewRecord(record.Time, record.Level, Text(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(attr(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrsOf(attrs))}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(Text(name))}
}

func attrsOf(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = attr(a)
	}
	return out
}

func attr(a slog.Attr) slog.Attr {
	value := a.Value.Resolve()
	switch value.Kind() {
	case slog.KindString:
		value = slog.StringValue(Text(value.String()))
	case slog.KindGroup:
		value = slog.GroupValue(attrsOf(value.Group())...)
	case slog.KindAny:
		if err, ok := value.Any().(error); ok {
			value = slog.AnyValue(Error(err)) // a handler may show errors in a colour of their own
		} else {
			value = slog.StringValue(Text(fmt.Sprint(value.Any())))
		}
	}
	return slog.Attr{Key: Text(a.Key), Value: value}
}
