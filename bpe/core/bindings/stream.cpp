// The Stream class of the Python module.

#include "encode/stream.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/unique_ptr.h>

#include <bit>
#include <mutex>
#include <type_traits>

#include "bindings/encoder.hpp"
#include "bindings/python.hpp"

namespace bpe {

namespace {

// A Stream that several threads may share: a mutex lets in one at a time. nanobind keeps the encoder alive.
class PythonStream {
 public:
    PythonStream(const PythonEncoder& encoder, std::shared_ptr<const AddedTokens> added,
                 std::shared_ptr<const SpecialTokens> forbidden)
        : added_(std::move(added)),
          forbidden_(std::move(forbidden)),
          stream_(encoder.encoder(), added_.get(), forbidden_.get()) {}

    // Returns a stream with the same text so far. It uses the same encoder.
    std::unique_ptr<PythonStream> copy() {
        return locked(0, [&] { return std::unique_ptr<PythonStream>(new PythonStream(*this)); });
    }

    nb::object feed(nb::handle object) {
        return feed_to(object, [](const IdBuffer& ids) { return nb::object(list_of(ids)); });
    }
    nb::object feed_to_bytes(nb::handle object) {
        return feed_to(object, [](IdBuffer& ids) { return nb::object(packed(ids)); });
    }

    nb::list flush() { return list_of(flushed()); }
    nb::bytes flush_to_bytes() {
        IdBuffer ids = flushed();
        return packed(ids);
    }

 private:
    PythonStream(const PythonStream& other)
        : added_(other.added_), forbidden_(other.forbidden_), stream_(other.stream_) {}

    template <class ToPython>
    nb::object feed_to(nb::handle object, const ToPython& to_python) {
        const TextArgument text(object);
        IdBuffer ids;
        Interrupt interrupt(check_signals);
        Interrupt* const polled = text.bytes().size() < kLongWork ? nullptr : &interrupt;
        const auto forbidden = locked(text.bytes().size(), [&] { return stream_.feed(text.bytes(), ids, polled); });
        if (forbidden) return nb::str(forbidden->data(), forbidden->size());
        return to_python(ids);
    }

    IdBuffer flushed() {
        IdBuffer ids;
        Interrupt interrupt(check_signals);
        locked(kMostBytesWithGil + 1, [&] { stream_.flush(ids, &interrupt); });
        return ids;
    }

    // Calls `use` with the mutex locked, and without the GIL if there are many bytes to process.
    template <class Use>
    std::invoke_result_t<Use> locked(std::size_t size, const Use& use) {
        std::unique_lock lock(mutex_, std::try_to_lock);
        if (!lock.owns_lock()) {
            const ReleasedGil release;
            lock.lock();
        }
        if (size <= kMostBytesWithGil) return use();
        const ReleasedGil release;
        return use();
    }

    static nb::list list_of(const IdBuffer& ids) {
        nb::list list;
        for (std::size_t i = 0; i < ids.size(); ++i) list.append(ids.data()[i]);
        return list;
    }

    // Returns ids as little-endian integers of 32 bits. Uses up the ids.
    static nb::bytes packed(IdBuffer& ids) {
        if constexpr (std::endian::native == std::endian::big) {
            for (std::size_t i = 0; i < ids.size(); ++i) ids.data()[i] = __builtin_bswap32(ids.data()[i]);
        }
        return nb::bytes(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(Id));
    }

    std::shared_ptr<const AddedTokens> added_;
    std::shared_ptr<const SpecialTokens> forbidden_;
    std::mutex mutex_;
    Stream stream_;
};

}  // namespace

void register_stream(nb::module_& module) {
    nb::class_<PythonStream>(module, "Stream", "Encodes a text that arrives in pieces.")
        .def(nb::init<const PythonEncoder&, std::shared_ptr<const AddedTokens>, std::shared_ptr<const SpecialTokens>>(),
             nb::arg("encoder"), nb::arg("added").none(), nb::arg("forbidden").none(), nb::keep_alive<1, 2>())
        .def("feed", &PythonStream::feed, nb::arg("text").none(),
             "Add a piece of the text, and return the ids that no more text can change. If the piece completes a "
             "forbidden special token, return that token instead and ignore the piece.")
        .def("feed_to_bytes", &PythonStream::feed_to_bytes, nb::arg("text").none(),
             "Add a piece of the text as `feed` does, and return the ids as little-endian integers of 32 bits.")
        .def("copy", &PythonStream::copy, nb::keep_alive<0, 1>(),
             "Return an independent stream with the same text so far.")
        .def("flush", &PythonStream::flush, "End the text, and return its last ids. After that, a new text may begin.")
        .def("flush_to_bytes", &PythonStream::flush_to_bytes,
             "End the text as `flush` does, and return its last ids as little-endian integers of 32 bits.");
}

}  // namespace bpe
