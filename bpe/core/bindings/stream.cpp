// The Stream class of the Python module.

#include "encode/stream.hpp"

#include <nanobind/stl/shared_ptr.h>

#include <mutex>
#include <type_traits>

#include "bindings/encoder.hpp"
#include "bindings/python.hpp"

namespace bpe {

namespace {

// A Stream that several threads may share: a mutex lets in one at a time. nanobind keeps the encoder alive.
class PythonStream {
 public:
    PythonStream(const PythonEncoder& encoder, std::shared_ptr<const SpecialTokens> special,
                 std::shared_ptr<const SpecialTokens> forbidden)
        : special_(std::move(special)),
          forbidden_(std::move(forbidden)),
          stream_(encoder.encoder(), special_.get(), forbidden_.get()) {}

    nb::object feed(nb::handle object) {
        const TextArgument text(object);
        IdBuffer ids;
        const auto forbidden = locked(text.bytes().size(), [&] { return stream_.feed(text.bytes(), ids); });
        if (forbidden) return nb::str(forbidden->data(), forbidden->size());
        return list_of(ids);
    }

    nb::list flush() {
        IdBuffer ids;
        locked(kMostBytesWithGil + 1, [&] { stream_.flush(ids); });
        return list_of(ids);
    }

 private:
    // Calls `use` with the mutex locked, and without the GIL if there are many bytes to process.
    template <class Use>
    std::invoke_result_t<Use> locked(std::size_t size, const Use& use) {
        std::unique_lock lock(mutex_, std::try_to_lock);
        if (!lock.owns_lock()) {
            const nb::gil_scoped_release release;
            lock.lock();
        }
        if (size <= kMostBytesWithGil) return use();
        const nb::gil_scoped_release release;
        return use();
    }

    static nb::list list_of(const IdBuffer& ids) {
        nb::list list;
        for (std::size_t i = 0; i < ids.size(); ++i) list.append(ids.data()[i]);
        return list;
    }

    std::shared_ptr<const SpecialTokens> special_;
    std::shared_ptr<const SpecialTokens> forbidden_;
    std::mutex mutex_;
    Stream stream_;
};

}  // namespace

void register_stream(nb::module_& module) {
    nb::class_<PythonStream>(module, "Stream", "Encodes a text that arrives in pieces.")
        .def(nb::init<const PythonEncoder&, std::shared_ptr<const SpecialTokens>,
                      std::shared_ptr<const SpecialTokens>>(),
             nb::arg("encoder"), nb::arg("special").none(), nb::arg("forbidden").none(), nb::keep_alive<1, 2>())
        .def("feed", &PythonStream::feed, nb::arg("text").none(),
             "Add a piece of the text, and return the ids that no more text can change. If the piece completes a "
             "forbidden special token, return that token instead and ignore the piece.")
        .def("flush", &PythonStream::flush, "End the text, and return its last ids. After that, a new text may begin.");
}

}  // namespace bpe
