// The only file that knows Python: it turns Python's objects into bytes, arrays and numbers, and back.

#include <nanobind/nanobind.h>

#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <type_traits>
#include <unordered_map>

#include "train/counter.hpp"
#include "encode/cuts.hpp"
#include "text/documents.hpp"
#include "encode/encoder.hpp"
#include "base/errors.hpp"
#include "text/json_lines.hpp"
#include "base/memory.hpp"
#include "encode/ranks.hpp"
#include "encode/rows.hpp"
#include "train/runs.hpp"
#include "encode/stream.hpp"
#include "train/trainer.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace nb = nanobind;

namespace bpe {
namespace {

template <class T>
using Array = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <class T>
using InputArray = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A numpy array that owns `data`, which came from malloc.
template <class T>
Array<T> owned_array(T* data, std::size_t size) {
    nb::capsule owner(data, [](void* memory) noexcept { std::free(memory); });
    return Array<T>(data, {size}, owner);
}

template <class T>
Array<T> copied_array(const T* data, std::size_t size) {
    auto* memory = static_cast<T*>(std::malloc(std::max<std::size_t>(1, size * sizeof(T))));
    if (!memory) throw std::bad_alloc();
    if (size) std::memcpy(memory, data, size * sizeof(T));
    return owned_array(memory, size);
}

// A new array, in large pages where it is large: to fill ordinary ones for the first time takes as long as to copy
// them.
template <class T>
Array<T> new_array(std::size_t size) {
    constexpr std::size_t kLarge = std::size_t{1} << 20;
    if (size * sizeof(T) < kLarge) {
        auto* memory = static_cast<T*>(std::malloc(std::max<std::size_t>(1, size * sizeof(T))));
        if (!memory) throw std::bad_alloc();
        return owned_array(memory, size);
    }
    auto memory = std::make_unique<ZeroedMemory>(zeroed_memory(size * sizeof(T)));
    T* data = static_cast<T*>(memory->get());
    nb::capsule owner(memory.get(), [](void* held) noexcept { delete static_cast<ZeroedMemory*>(held); });
    memory.release();
    return Array<T>(data, {size}, owner);
}

// The UTF-8 of a str, or the memory of bytes or any other buffer, held for as long as this lives. A str with
// surrogates gives what tiktoken makes of it: pairs are joined, lone ones become U+FFFD.
class Text {
 public:
    explicit Text(nb::handle object) {
        if (PyUnicode_Check(object.ptr())) {
            owner_ = nb::borrow(object);
            if (!view_string()) {
                PyErr_Clear();
                const nb::object utf16 = nb::steal(PyUnicode_AsEncodedString(object.ptr(), "utf-16", "surrogatepass"));
                if (!utf16.is_valid()) nb::raise_python_error();
                owner_ = nb::steal(PyUnicode_Decode(PyBytes_AS_STRING(utf16.ptr()), PyBytes_GET_SIZE(utf16.ptr()),
                                                    "utf-16", "replace"));
                if (!owner_.is_valid() || !view_string()) nb::raise_python_error();
            }
        } else if (PyBytes_Check(object.ptr())) {
            owner_ = nb::borrow(object);
            bytes_ = {reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(object.ptr())),
                      static_cast<std::size_t>(PyBytes_GET_SIZE(object.ptr()))};
        } else if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_SIMPLE) == 0) {
            bytes_ = {static_cast<const std::uint8_t*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
        } else {
            PyErr_Clear();
            throw nb::type_error((std::string("expected str or bytes, not ") + Py_TYPE(object.ptr())->tp_name).c_str());
        }
    }
    Text(Text&& other) noexcept : owner_(std::move(other.owner_)), buffer_(other.buffer_), bytes_(other.bytes_) {
        other.buffer_.obj = nullptr;
    }
    Text(const Text&) = delete;
    Text& operator=(const Text&) = delete;
    ~Text() {
        if (buffer_.obj) PyBuffer_Release(&buffer_);
    }
    Bytes bytes() const { return bytes_; }

 private:
    bool view_string() {
        Py_ssize_t size = 0;
        const char* data = PyUnicode_AsUTF8AndSize(owner_.ptr(), &size);
        bytes_ = {reinterpret_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size)};
        return data != nullptr;
    }

    nb::object owner_;
    Py_buffer buffer_{};
    Bytes bytes_;
};

// The value of an int that stands in one digit, as ids do; the interpreter's function for it takes longer than all the
// rest of decoding.
std::optional<Id> small_int(PyObject* object) {
    auto* number = reinterpret_cast<PyLongObject*>(object);
#if PY_VERSION_HEX >= 0x030C0000
    if (!PyUnstable_Long_IsCompact(number)) return std::nullopt;
    const Py_ssize_t value = PyUnstable_Long_CompactValue(number);
    return value < 0 ? std::nullopt : std::optional(static_cast<Id>(value));
#else
    const Py_ssize_t digits = Py_SIZE(object);
    if (digits == 1) return static_cast<Id>(number->ob_digit[0]);
    return digits == 0 ? std::optional<Id>(0) : std::nullopt;
#endif
}

// An id from an int, or from whatever has __index__, as numpy's numbers do.
Id id_from(PyObject* object) {
    const auto checked = [](PyObject* number) {
        const unsigned long value = PyLong_AsUnsignedLong(number);
        if (value == static_cast<unsigned long>(-1) && PyErr_Occurred()) nb::raise_python_error();
        if (value > 0xFFFFFFFF) {
            PyErr_SetString(PyExc_OverflowError, "a token id has at most 32 bits");
            nb::raise_python_error();
        }
        return static_cast<Id>(value);
    };
    if (PyLong_CheckExact(object)) {
        if (const std::optional<Id> value = small_int(object)) return *value;
        return checked(object);
    }
    const nb::object number = nb::steal(PyNumber_Index(object));
    if (!number.is_valid()) nb::raise_python_error();
    return checked(number.ptr());
}

Pattern pattern_of(int number) {
    if (number < 0 || number >= kPatternCount) {
        throw std::invalid_argument("there is no scanner " + std::to_string(number));
    }
    return static_cast<Pattern>(number);
}

const Kernel& kernel_named(const std::string& name) {
    const auto all = kernels();
    const auto found = std::find_if(all.begin(), all.end(), [&](const Kernel& kernel) { return kernel.name == name; });
    if (found == all.end()) throw std::invalid_argument("there is no kernel " + name);
    return *found;
}

std::string to_string(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

struct Texts {
    explicit Texts(nb::handle objects) {
        for (nb::handle object : nb::iter(objects)) {
            texts.emplace_back(object);
            spans.push_back(texts.back().bytes());
        }
    }
    std::vector<Text> texts;
    std::vector<Bytes> spans;
};

// The texts themselves, or their documents where there is a separator between these.
std::vector<Bytes> documents_of(const Texts& texts, const std::optional<std::string>& separator) {
    if (!separator) return texts.spans;
    std::vector<Bytes> documents;
    for (const Bytes text : texts.spans) split_documents(text, *separator, documents);
    return documents;
}

// Text of up to this many bytes is encoded in about a microsecond; letting go of the interpreter's lock costs a
// good part of that.
constexpr std::size_t kWithLock = 256;

// Encoder, with what Python's side needs beside it: the special tokens' bytes for decoding, and ready int objects.
class PythonEncoder {
 public:
    PythonEncoder(nb::bytes tokens, InputArray<std::uint64_t> offsets, InputArray<Id> ids, int pattern,
                  nb::dict special_tokens, const std::string& kernel, bool merges_only)
        : encoder_(std::make_shared<Vocabulary>(
                       Bytes(reinterpret_cast<const std::uint8_t*>(tokens.c_str()), tokens.size()),
                       std::span(offsets.data(), offsets.size()), std::span(ids.data(), ids.size()), merges_only),
                   pattern_of(pattern), kernel_named(kernel)),
          integers_(encoder_.vocabulary().id_limit(), nullptr) {
        for (auto [token, id] : special_tokens) {
            special_bytes_[id_from(id.ptr())] = to_string(Text(token).bytes());
        }
    }
    ~PythonEncoder() {
        for (PyObject* integer : integers_) Py_XDECREF(integer);
    }
    PythonEncoder(const PythonEncoder&) = delete;
    PythonEncoder& operator=(const PythonEncoder&) = delete;

    nb::object encode(nb::handle text, const SpecialTokens* special) {
        return encoded(text, special, [&](std::span<const Id> ids) { return list_of(ids); });
    }

    nb::object encode_to_numpy(nb::handle text, const SpecialTokens* special) {
        return encoded(text, special, [&](std::span<const Id> ids) { return array_of(ids); });
    }

    std::size_t count(nb::handle text, const SpecialTokens* special) {
        return encoded(text, special, [&](std::span<const Id> ids) { return ids.size(); });
    }

    // (ids, offsets). With `out`, an array of uint16 or uint32, the ids are put there, and the first is their number.
    nb::tuple encode_all(nb::handle objects, const SpecialTokens* special, std::size_t threads,
                         const std::optional<std::string>& separator, bool short_ids, nb::handle out) {
        const Texts texts(objects);
        std::optional<EncodedTexts> encoded;
        {
            const nb::gil_scoped_release release;
            encoded.emplace(encoder_.encode_all(documents_of(texts, separator), special, threads));
        }
        const auto offsets = copied_array(encoded->offsets().data(), encoded->offsets().size());
        if (short_ids) return nb::make_tuple(put<std::uint16_t>(*encoded, out), offsets);
        return nb::make_tuple(put<Id>(*encoded, out), offsets);
    }

    // The ids of several texts, cut at the offsets, as a list of lists.
    nb::object lists(const InputArray<Id>& ids, const InputArray<std::int64_t>& offsets) {
        nb::object lists = nb::steal(PyList_New(static_cast<Py_ssize_t>(offsets.size()) - 1));
        if (!lists.is_valid()) nb::raise_python_error();
        for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
            const auto begin = static_cast<std::size_t>(offsets.data()[i]);
            const auto end = static_cast<std::size_t>(offsets.data()[i + 1]);
            if (begin > end || end > ids.size()) throw std::invalid_argument("the offsets do not fit the ids");
            PyList_SET_ITEM(lists.ptr(), static_cast<Py_ssize_t>(i),
                            list_of(std::span(ids.data() + begin, end - begin)).release().ptr());
        }
        return lists;
    }

    nb::object encode_pretokens(nb::handle objects) {
        const Texts pretokens(objects);
        IdBuffer ids;
        encoder_.encode_pretokens(pretokens.spans, ids);
        return list_of(ids);
    }

    // The same by the plain routine, for the tests.
    nb::object merge_plain(nb::handle object) {
        const Text text(object);
        IdBuffer ids;
        ids.reserve(text.bytes().size());
        ids.advance(bpe::merge_plain(encoder_.vocabulary(), text.bytes().data(), text.bytes().size(), ids.end()));
        return list_of(ids);
    }

    // And by merging alone, without a look at the whole.
    nb::object merge(nb::handle object) {
        const Text text(object);
        IdBuffer ids;
        if (text.bytes().empty()) return list_of(ids);
        ids.reserve(text.bytes().size());
        Merger merger(encoder_.vocabulary(), encoder_.kernel());
        ids.advance(merger.merge(text.bytes().data(), text.bytes().size(), ids.end()));
        return list_of(ids);
    }

    std::optional<Id> find(nb::bytes token) const {
        const Id id = encoder_.vocabulary().find(reinterpret_cast<const std::uint8_t*>(token.c_str()), token.size());
        return id == kNoId ? std::nullopt : std::optional(id);
    }

    nb::bytes bytes_of(nb::handle id) const {
        const Bytes token = lookup(id_from(id.ptr()));
        return nb::bytes(token.data(), token.size());
    }

    // The same without special tokens, and empty for an id that is not used.
    nb::bytes token_bytes(Id id) const {
        if (id >= encoder_.vocabulary().id_limit()) return nb::bytes("", 0);
        const Bytes token = encoder_.vocabulary().bytes_of(id);
        return nb::bytes(token.data(), token.size());
    }

    // How many bytes each of the first ids stands for: 0 for special tokens, and for an id that is not used.
    Array<std::uint32_t> token_sizes(std::size_t count) const {
        std::vector<std::uint32_t> sizes(count);
        for (std::size_t id = 0; id < std::min(count, id_limit()); ++id) {
            sizes[id] = static_cast<std::uint32_t>(encoder_.vocabulary().bytes_of(static_cast<Id>(id)).size());
        }
        return copied_array(sizes.data(), sizes.size());
    }

    std::size_t id_limit() const { return encoder_.vocabulary().id_limit(); }

    nb::object decode_bytes(nb::handle sequence) const {
        const Joined text = decoded(sequence);
        return nb::steal(PyBytes_FromStringAndSize(text.data.get(), static_cast<Py_ssize_t>(text.size)));
    }

    nb::object decode(nb::handle sequence, const char* errors) const {
        const Joined text = decoded(sequence);
        nb::object result = string_of({reinterpret_cast<const std::uint8_t*>(text.data.get()), text.size});
        if (!result.is_valid()) {
            result = nb::steal(PyUnicode_DecodeUTF8(text.data.get(), static_cast<Py_ssize_t>(text.size), errors));
            if (!result.is_valid()) nb::raise_python_error();
        }
        return result;
    }

    // left, right, merged id of every pair that can merge, by merged id
    Array<Id> pairs() const {
        const std::vector<Id> pairs = encoder_.vocabulary().pairs();
        return copied_array(pairs.data(), pairs.size());
    }

    const Encoder& encoder() const { return encoder_; }

    void limit_cache(std::size_t bytes) { encoder_.limit_cache(bytes); }

    std::size_t longest_token() const { return encoder_.vocabulary().longest_token(); }
    std::size_t pair_count() const { return encoder_.vocabulary().pair_count(); }

 private:
    // What `use` makes of the ids of a text, with the interpreter's lock held.
    template <class Use>
    std::invoke_result_t<Use, std::span<const Id>> encoded(nb::handle object, const SpecialTokens* special,
                                                           const Use& use) {
        const Text text(object);
        const Encoder::Loan loan(encoder_);
        if (text.bytes().size() <= kWithLock) return use(loan.encode(text.bytes(), special));
        std::span<const Id> ids;
        {
            const nb::gil_scoped_release release;
            ids = loan.encode(text.bytes(), special);
        }
        return use(ids);
    }

    template <class T>
    static nb::object put(EncodedTexts& encoded, nb::handle out) {
        if (out.is_none()) {
            Array<T> array = new_array<T>(encoded.size());
            {
                const nb::gil_scoped_release release;
                encoded.copy_to(array.data());
            }
            return nb::cast(array);
        }
        nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
        if (!nb::try_cast(out, array, false)) {
            throw nb::type_error(("out must be a writable contiguous array of uint" + std::to_string(8 * sizeof(T)) +
                                  " with one dimension")
                                     .c_str());
        }
        if (array.size() < encoded.size()) {
            throw std::invalid_argument("out has room for " + std::to_string(array.size()) + " ids, but there are " +
                                        std::to_string(encoded.size()));
        }
        {
            const nb::gil_scoped_release release;
            encoded.copy_to(array.data());
        }
        return nb::cast(encoded.size());
    }

    // A numpy array of exactly this size, made by numpy itself: 0.2 us, half of what it costs to wrap memory of ours.
    nb::object array_of(std::span<const Id> ids) {
        if (!empty_array_.is_valid()) {  // numpy is imported when it is first needed
            const nb::module_ numpy = nb::module_::import_("numpy");
            id_type_ = numpy.attr("dtype")("uint32");
            empty_array_ = numpy.attr("empty");
        }
        const nb::object array = empty_array_(ids.size(), id_type_);
        Py_buffer buffer;
        if (PyObject_GetBuffer(array.ptr(), &buffer, PyBUF_SIMPLE | PyBUF_WRITABLE) != 0) nb::raise_python_error();
        if (!ids.empty()) std::memcpy(buffer.buf, ids.data(), ids.size_bytes());
        PyBuffer_Release(&buffer);
        return array;
    }

    // A new reference to the int object for an id; those of the vocabulary are made once.
    PyObject* integer(Id id) {
        if (id >= integers_.size()) return PyLong_FromUnsignedLong(id);
        PyObject*& ready = integers_[id];
        if (!ready) ready = PyLong_FromUnsignedLong(id);
        Py_XINCREF(ready);
        return ready;
    }

    // The objects lie all over the memory, so those of a block are asked for before any is touched.
    //
    // The garbage collector does not look at the list, and so not at the objects either: where many lists are kept,
    // that took a third of the time. It looks for cycles, and none goes through a list of ints. (Should a caller put
    // into it what leads back to it, that cycle is not found: CPython follows what a list holds only if it is tracked.)
    nb::object list_of(std::span<const Id> ids) {
        constexpr std::size_t kBlock = 64;
        nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(ids.size())));
        if (!list.is_valid()) nb::raise_python_error();
        PyObject_GC_UnTrack(list.ptr());
        PyObject* ready[kBlock];
        for (std::size_t begin = 0; begin < ids.size(); begin += kBlock) {
            const std::size_t count = std::min(kBlock, ids.size() - begin);
            for (std::size_t i = 0; i < count; ++i) {
                const Id id = ids[begin + i];
                ready[i] = id < integers_.size() ? integers_[id] : nullptr;
                __builtin_prefetch(ready[i], 1);
            }
            for (std::size_t i = 0; i < count; ++i) {
                if (ready[i]) [[likely]] {
                    Py_INCREF(ready[i]);
                } else if (!(ready[i] = integer(ids[begin + i]))) {
                    nb::raise_python_error();
                }
                PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(begin + i), ready[i]);
            }
        }
        return list;
    }
    nb::object list_of(const IdBuffer& ids) { return list_of(std::span(ids.data(), ids.size())); }

    // The str of a text that is not ASCII, in half of the interpreter's time; nothing for what is left to it: other
    // texts, those that are not well-formed, and those with characters above U+FFFF.
    nb::object string_of(Bytes text) const {
        const Utf8Kernel* utf8 = encoder_.kernel().utf8;
        if (!utf8) return {};
        const Utf8Shape shape = utf8->measure(text.data(), text.size());
        if (shape.highest < 0xC2 || shape.highest > 0xEF) return {};
        const bool is_narrow = shape.highest <= 0xC3;
        nb::object result =
            nb::steal(PyUnicode_New(static_cast<Py_ssize_t>(shape.characters), is_narrow ? 0xFF : 0xFFFF));
        if (!result.is_valid()) nb::raise_python_error();
        void* data = PyUnicode_DATA(result.ptr());
        const bool well_formed = is_narrow ? utf8->narrow(text.data(), text.size(), static_cast<std::uint8_t*>(data))
                                           : utf8->wide(text.data(), text.size(), static_cast<std::uint16_t*>(data));
        return well_formed ? result : nb::object();
    }

    // The bytes that ids stand for, one after the other. Most tokens are short: 15 bytes are copied, and the end moves
    // on by as many as the token has.
    struct Joined {
        std::unique_ptr<char[]> data;
        std::size_t size = 0;
    };
    Joined decoded(nb::handle sequence) const {
        if (InputArray<Id> array; nb::try_cast(sequence, array, false)) {
            return decoded(std::span(array.data(), array.size()));
        }
        const nb::object items = nb::steal(PySequence_Fast(sequence.ptr(), "expected a sequence of ints"));
        if (!items.is_valid()) nb::raise_python_error();
        const std::vector<Id> ids = ids_of(items);
        return decoded(std::span<const Id>(ids));
    }
    Joined decoded(std::span<const Id> ids) const {
        constexpr std::size_t kAhead = 16;
        const std::span<const Vocabulary::ShortToken> tokens = encoder_.vocabulary().short_tokens();
        std::size_t room = ids.size() * 6 + 64;
        Joined text{std::make_unique_for_overwrite<char[]>(room)};
        char* out =
            text.data.get();  // what stands in variables of this function is not read again for each byte written
        std::size_t size = 0;
        const auto make_room = [&](std::size_t more) {
            if (room - size >= more) [[likely]]
                return;
            room += room / 2 + more;
            auto larger = std::make_unique_for_overwrite<char[]>(room);
            std::memcpy(larger.get(), out, size);
            text.data = std::move(larger);
            out = text.data.get();
        };
        for (std::size_t i = 0; i < ids.size(); ++i) {
            if (i + kAhead < ids.size() && ids[i + kAhead] < tokens.size()) {
                __builtin_prefetch(&tokens[ids[i + kAhead]]);
            }
            make_room(16);
            if (ids[i] < tokens.size()) [[likely]] {
                const Vocabulary::ShortToken token = tokens[ids[i]];
                std::memcpy(out + size, &token, sizeof token);
                size += token.length;
                if (token.length) [[likely]]
                    continue;
            }
            const Bytes token = lookup(ids[i]);
            make_room(token.size());
            std::memcpy(out + size, token.data(), token.size());
            size += token.size();
        }
        text.size = size;
        return text;
    }

    // The ints lie all over the memory, so they are asked for some ahead.
    static std::vector<Id> ids_of(const nb::object& items) {
        constexpr Py_ssize_t kAhead = 16;
        const Py_ssize_t size = PySequence_Fast_GET_SIZE(items.ptr());
        PyObject* const* objects = PySequence_Fast_ITEMS(items.ptr());
        std::vector<Id> ids(static_cast<std::size_t>(size));
        Id* out = ids.data();
        Py_ssize_t i = 0;
        for (; i < size; ++i) {
            __builtin_prefetch(objects[std::min(i + kAhead, size - 1)]);
            if (!PyLong_CheckExact(objects[i])) break;
            const std::optional<Id> value = small_int(objects[i]);
            if (!value) break;
            out[i] = *value;
        }
        // The others: an __index__ may run any code, so the size is asked for again, and the item is held.
        for (; i < std::min(PySequence_Fast_GET_SIZE(items.ptr()), size); ++i) {
            ids[static_cast<std::size_t>(i)] = id_from(nb::borrow(PySequence_Fast_GET_ITEM(items.ptr(), i)).ptr());
        }
        ids.resize(static_cast<std::size_t>(i));
        return ids;
    }

    Bytes lookup(Id id) const {
        if (id < encoder_.vocabulary().id_limit()) {
            if (const Bytes token = encoder_.vocabulary().bytes_of(id); !token.empty()) return token;
        }
        const auto found = special_bytes_.find(id);
        if (found == special_bytes_.end()) {
            throw nb::key_error(("Invalid token for decoding: " + std::to_string(id)).c_str());
        }
        return {reinterpret_cast<const std::uint8_t*>(found->second.data()), found->second.size()};
    }

    Encoder encoder_;
    std::unordered_map<Id, std::string> special_bytes_;
    std::vector<PyObject*> integers_;
    nb::object empty_array_;
    nb::object id_type_;
};

// The methods of Tokenizer, its subclass in Python, that are called for so little text that a Python function around
// them would take longer than they do.
class TokenizerBase {
 public:
    // `core` is None where the pattern has no scanner.
    TokenizerBase(nb::object core, nb::object all_special)
        : core_(std::move(core)),
          all_special_(std::move(all_special)),
          encoder_(core_.is_none() ? nullptr : nb::cast<PythonEncoder*>(core_)),
          special_(nb::cast<const SpecialTokens*>(all_special_)) {}

    static nb::object encode_ordinary(nb::handle_t<TokenizerBase> self, nb::handle text) {
        const TokenizerBase& base = of(self);
        if (!base.encoder_) return self.attr("_encode_slowly")(text, nb::none());
        return base.encoder_->encode(text, nullptr);
    }

    // `encode` of Tokenizer as it is mostly called: no special token is allowed, and any is an error.
    static nb::object encode_without_special(nb::handle_t<TokenizerBase> self, nb::handle text) {
        const TokenizerBase& base = of(self);
        {
            const Text content(text);
            const Bytes bytes = content.bytes();
            if (const auto match = base.special_->find(bytes, 0); match.begin < bytes.size()) {
                const Bytes token = bytes.subspan(match.begin, match.end - match.begin);
                self.attr("_raise_disallowed")(nb::str(reinterpret_cast<const char*>(token.data()), token.size()));
            }
        }
        return encode_ordinary(self, text);
    }

    // An array, without a look for special tokens as long as none are named.
    static nb::object encode_to_numpy(nb::handle_t<TokenizerBase> self, nb::handle text, nb::handle allowed,
                                      nb::handle disallowed) {
        const TokenizerBase& base = of(self);
        if (!base.encoder_ || is_true(allowed) || is_true(disallowed)) {
            return self.attr("_encode_to_numpy")(text, allowed, disallowed);
        }
        return base.encoder_->encode_to_numpy(text, nullptr);
    }

 private:
    static bool is_true(nb::handle object) {
        const int result = PyObject_IsTrue(object.ptr());
        if (result < 0) nb::raise_python_error();
        return result;
    }
    static const TokenizerBase& of(nb::handle_t<TokenizerBase> self) { return *nb::inst_ptr<TokenizerBase>(self); }

    nb::object core_;
    nb::object all_special_;
    PythonEncoder* encoder_;
    const SpecialTokens* special_;
};

std::shared_ptr<SpecialTokens> make_special_tokens(nb::dict tokens) {
    std::vector<std::string> strings;
    std::vector<Id> ids;
    for (auto [token, id] : tokens) {
        strings.push_back(to_string(Text(token).bytes()));
        ids.push_back(id_from(id.ptr()));
    }
    return std::make_shared<SpecialTokens>(std::move(strings), ids);
}

std::optional<std::string> first_special(const SpecialTokens& special, nb::handle object) {
    const Text text(object);
    const SpecialTokens::Match match = special.find(text.bytes(), 0);
    if (match.begin == text.bytes().size()) return std::nullopt;
    return to_string(text.bytes().subspan(match.begin, match.end - match.begin));
}

nb::list all_specials(const SpecialTokens& special, nb::handle object) {
    const Text text(object);
    nb::list found;
    for (std::size_t begin = 0;;) {
        const SpecialTokens::Match match = special.find(text.bytes(), begin);
        if (match.begin == text.bytes().size()) return found;
        found.append(nb::make_tuple(match.begin, match.end, match.id));
        begin = match.end;
    }
}

// The first of several texts in which a token stands, and the token.
std::optional<std::pair<std::size_t, std::string>> first_special_of(const SpecialTokens& special, nb::handle objects,
                                                                    const std::optional<std::string>& separator) {
    const Texts texts(objects);
    const nb::gil_scoped_release release;
    std::vector<Bytes> documents;
    for (std::size_t i = 0; i < texts.spans.size(); ++i) {
        documents.assign(1, texts.spans[i]);
        if (separator) {
            documents.clear();
            split_documents(texts.spans[i], *separator, documents);
        }
        for (const Bytes text : documents) {
            const SpecialTokens::Match match = special.find(text, 0);
            if (match.begin == text.size()) continue;
            return std::pair(i, to_string(text.subspan(match.begin, match.end - match.begin)));
        }
    }
    return std::nullopt;
}

// Stream, which one thread uses at a time. The encoder is kept alive by nanobind.
class PythonStream {
 public:
    PythonStream(const PythonEncoder& encoder, std::shared_ptr<const SpecialTokens> special,
                 std::shared_ptr<const SpecialTokens> forbidden)
        : special_(std::move(special)),
          forbidden_(std::move(forbidden)),
          stream_(encoder.encoder(), special_.get(), forbidden_.get()) {}

    // The ids, or the forbidden token that was found.
    nb::object feed(nb::handle object) {
        const Text text(object);
        IdBuffer ids;
        const auto forbidden = used(text.bytes().size(), [&] { return stream_.feed(text.bytes(), ids); });
        if (forbidden) return nb::str(forbidden->data(), forbidden->size());
        return list_of(ids);
    }

    nb::list flush() {
        IdBuffer ids;
        used(kWithLock + 1, [&] { stream_.flush(ids); });
        return list_of(ids);
    }

 private:
    template <class Use>
    std::invoke_result_t<Use> used(std::size_t size, const Use& use) {
        std::unique_lock lock(mutex_, std::try_to_lock);
        if (!lock.owns_lock()) {
            const nb::gil_scoped_release release;
            lock.lock();
        }
        if (size <= kWithLock) return use();
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

// The content of a file as an array of bytes that cannot be written to.
nb::object file_content(nb::object path) {
    PyObject* converted = nullptr;
    if (!PyUnicode_FSConverter(path.ptr(), &converted)) nb::raise_python_error();
    const nb::object name = nb::steal(converted);
    std::unique_ptr<FileContent> content;
    try {
        const nb::gil_scoped_release release;
        content = std::make_unique<FileContent>(PyBytes_AS_STRING(name.ptr()));
    } catch (const std::system_error& error) {
        errno = error.code().value();
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.ptr());
        nb::raise_python_error();
    }
    const Bytes bytes = content->bytes();
    nb::capsule owner(content.get(), [](void* held) noexcept { delete static_cast<FileContent*>(held); });
    content.release();
    return nb::cast(Array<const std::uint8_t>(bytes.data(), {bytes.size()}, owner));
}

std::size_t first_invalid(nb::handle object, bool plain) {
    const Text text(object);
    if (text.bytes().size() <= kWithLock) return invalid_utf8(text.bytes(), 0, plain);
    const nb::gil_scoped_release release;
    return invalid_utf8(text.bytes(), 0, plain);
}

nb::tuple replaced_invalid(nb::handle object, nb::bytes replacement) {
    const Text text(object);
    const Bytes with{reinterpret_cast<const std::uint8_t*>(replacement.c_str()), replacement.size()};
    ReplacedText replaced;
    {
        const nb::gil_scoped_release release;
        replaced = replace_invalid_utf8(text.bytes(), with);
    }
    return nb::make_tuple(nb::bytes(replaced.bytes.data(), replaced.bytes.size()), replaced.count);
}

nb::list json_texts(nb::handle object, const std::string& key) {
    const Text text(object);
    JsonTexts texts;
    {
        const nb::gil_scoped_release release;
        texts = texts_of_json_lines(text.bytes(), key);
    }
    nb::list result;
    for (const auto& line : texts.lines) {
        if (line) {
            result.append(nb::bytes(line->data(), line->size()));
        } else {
            result.append(nb::none());
        }
    }
    return result;
}

template <class T>
nb::tuple take_documents_as(const DocumentRows& documents) {
    const std::size_t size = documents.size(), count = documents.rows.size() + 1;
    // From malloc, which gives the same memory again and again: fresh pages take longer than what is put there.
    const auto room = [](std::size_t bytes) {
        void* memory = std::malloc(std::max<std::size_t>(1, bytes));
        if (!memory) throw std::bad_alloc();
        return memory;
    };
    const auto ids = owned_array(static_cast<T*>(room(size * sizeof(T))), size);
    const auto offsets = owned_array(static_cast<std::int64_t*>(room(count * sizeof(std::int64_t))), count);
    {
        const nb::gil_scoped_release release;
        documents.copy(ids.data(), offsets.data());
    }
    return nb::make_tuple(ids, offsets);
}

nb::tuple take_documents(InputArray<Id> ids, InputArray<std::int64_t> offsets, InputArray<std::int64_t> rows,
                         std::optional<Id> begin, std::optional<Id> end, bool short_ids) {
    const DocumentRows documents{std::span(ids.data(), ids.size()), std::span(offsets.data(), offsets.size()),
                                 std::span(rows.data(), rows.size()), begin, end};
    return short_ids ? take_documents_as<std::uint16_t>(documents) : take_documents_as<Id>(documents);
}

// All places where a text may be cut, for the tests.
nb::list cuts_of(int pattern, nb::handle object) {
    const Text text(object);
    nb::list cuts;
    for (std::size_t at = next_cut(pattern_of(pattern), text.bytes(), 0); at < text.bytes().size();
         at = next_cut(pattern_of(pattern), text.bytes(), at + 1)) {
        cuts.append(at);
    }
    return cuts;
}

nb::list kernel_names() {
    nb::list names;
    for (const Kernel& kernel : kernels()) names.append(kernel.name);
    return names;
}

Array<std::uint64_t> scan_all(int pattern, nb::handle object, const std::string& kernel) {
    const Text text(object);
    const Bytes bytes = text.bytes();
    const auto chosen = pattern_of(pattern);
    std::vector<std::uint64_t> ends(bytes.size() + 64);
    const std::size_t count =
        kernel_named(kernel).scan(chosen, bytes.data(), 0, bytes.size(), ends.data(), ends.size());
    return copied_array(ends.data(), count);
}

nb::tuple parse_ranks_file(nb::bytes text) {
    const Ranks ranks = parse_ranks({reinterpret_cast<const std::uint8_t*>(text.c_str()), text.size()});
    return nb::make_tuple(nb::bytes(ranks.bytes.data(), ranks.bytes.size()),
                          nb::bytes(ranks.offsets.data(), ranks.offsets.size() * sizeof(std::uint64_t)),
                          nb::bytes(ranks.ids.data(), ranks.ids.size() * sizeof(Id)));
}

// The strings of an array as a GGUF has them, each behind its length in 64 bits, and where they end; nothing where they
// go on beyond the content.
std::optional<std::pair<nb::list, std::size_t>> strings_of(nb::handle object, std::size_t at, std::size_t count) {
    const Text text(object);
    const Bytes content = text.bytes();
    nb::list strings;
    for (; count > 0; --count) {
        std::uint64_t size = 0;
        if (at > content.size() || content.size() - at < sizeof size) return std::nullopt;
        std::memcpy(&size, content.data() + at, sizeof size);
        at += sizeof size;
        if (size > content.size() - at) return std::nullopt;
        const char* begin = reinterpret_cast<const char*>(content.data() + at);
        const nb::object string = nb::steal(PyUnicode_DecodeUTF8(begin, static_cast<Py_ssize_t>(size), "replace"));
        if (!string.is_valid()) nb::raise_python_error();
        strings.append(string);
        at += size;
    }
    return std::pair(strings, at);
}

nb::tuple counted_words(Counter& counter) {
    const WordCounts& words = counter.words();
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> offsets{0};
    std::vector<std::uint64_t> values;
    for (std::uint32_t number = 1; number <= words.size(); ++number) {
        const Bytes word = words.bytes_of(number);
        bytes.insert(bytes.end(), word.begin(), word.end());
        offsets.push_back(bytes.size());
        values.push_back(words.count_of(number));
    }
    return nb::make_tuple(nb::bytes(bytes.data(), bytes.size()), copied_array(offsets.data(), offsets.size()),
                          copied_array(values.data(), values.size()));
}

// Words that were counted: in memory, or in a run.
class CountedWords : public WordSource {
 public:
    CountedWords(Counter* counter, std::string run, bool keep) : counter_(counter), run_(std::move(run)), keep_(keep) {}
    void visit(const std::function<void(Bytes, std::uint64_t)>& visit) override {
        if (!counter_) return visit_run(run_, visit);
        const WordCounts& words = counter_->words();
        for (std::uint32_t number = 1; number <= words.size(); ++number) {
            visit(words.bytes_of(number), words.count_of(number));
        }
    }
    void release() override {
        if (counter_ && !keep_) counter_->clear();
    }

 private:
    Counter* counter_;
    std::string run_;
    bool keep_;
};

nb::tuple train(nb::handle counted, nb::bytes tokens, InputArray<std::uint64_t> offsets, InputArray<Id> ids,
                std::size_t merges, std::uint64_t min_frequency, std::size_t max_token_length, std::size_t threads,
                nb::callable progress, nb::callable save, std::size_t traced, nb::object trace, bool keep,
                std::size_t memory) {
    const bool in_memory = nb::isinstance<Counter>(counted);
    CountedWords words(in_memory ? nb::cast<Counter*>(counted) : nullptr,
                       in_memory ? std::string() : nb::cast<std::string>(counted), keep);
    TrainerOptions options;
    options.base =
        std::make_shared<Vocabulary>(Bytes(reinterpret_cast<const std::uint8_t*>(tokens.c_str()), tokens.size()),
                                     std::span(offsets.data(), offsets.size()), std::span(ids.data(), ids.size()));
    options.merges = merges;
    options.min_frequency = min_frequency;
    options.max_token_length = max_token_length;
    options.threads = std::clamp<std::size_t>(threads, 1, kMostThreads);
    bool failed = false;
    const auto rows_of = [](std::span<const Merge> learned) {
        std::vector<std::uint64_t> rows;
        for (const Merge& merge : learned) rows.insert(rows.end(), {merge.left, merge.right, merge.count});
        return copied_array(rows.data(), rows.size()).cast().attr("reshape")(-1, 3);
    };
    options.progress = [&](std::span<const Merge> learned) {
        const nb::gil_scoped_acquire acquire;
        try {
            if (nb::cast<bool>(progress(learned.size()))) save(rows_of(learned));
            failed = failed || PyErr_CheckSignals() != 0;
        } catch (nb::python_error& error) {
            error.restore();
            failed = true;
        }
        return !failed;
    };
    options.memory = memory;
    options.traced = traced;
    options.trace = [&](const Merge& merge, std::span<const Id> word, std::size_t place) {
        const nb::gil_scoped_acquire acquire;
        if (failed) return;
        try {
            nb::list word_ids;
            for (const Id id : word) word_ids.append(id);
            trace(merge.left, merge.right, merge.count, word_ids, place);
        } catch (nb::python_error& error) {
            error.restore();
            failed = true;
        }
    };
    Learned learned;
    {
        const nb::gil_scoped_release release;
        learned = train_merges(words, options);
    }
    if (failed) nb::raise_python_error();
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint64_t> ends{0};
    const std::size_t limit = options.base->id_limit();
    const auto append = [&](Id id) {
        const Bytes token = id < limit
                                ? options.base->bytes_of(id)
                                : Bytes(bytes).subspan(ends[id - limit], ends[id - limit + 1] - ends[id - limit]);
        const std::vector<std::uint8_t> copy(token.begin(), token.end());
        bytes.insert(bytes.end(), copy.begin(), copy.end());
    };
    for (const Merge& merge : learned.merges) {
        append(merge.left);
        append(merge.right);
        ends.push_back(bytes.size());
    }
    return nb::make_tuple(rows_of(learned.merges), copied_array(learned.uses.data(), learned.uses.size()),
                          nb::bytes(bytes.data(), bytes.size()), copied_array(ends.data(), ends.size()));
}

}  // namespace

NB_MODULE(_core, m) {
    // what() of a system_error made with a path begins with it, and ends in what errno says.
    nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
        try {
            std::rethrow_exception(pointer);
        } catch (const std::system_error& error) {
            const std::string path = std::string(error.what()).substr(0, std::string(error.what()).rfind(": "));
            errno = error.code().value();
            PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
        } catch (const InputError& error) {
            PyErr_SetString(nb::module_::import_("bpe.errors").attr("InputError").ptr(), error.what());
        }
    });
    nb::set_leak_warnings(false);  // what lives until the interpreter ends is none
    m.doc() = "The hot core of bpe: splitting, encoding, counting and training.";

    m.def("kernels", &kernel_names, "The ways of scanning that this machine can run, the best first.");
    m.def("scan", &scan_all, nb::arg("pattern"), nb::arg("text"), nb::arg("kernel") = kernels().front().name,
          "The end of each pretoken, in bytes.");
    m.def("cuts", &cuts_of, nb::arg("pattern"), nb::arg("text"), "Where the text may be cut for certain, in bytes.");
    m.def("file_content", &file_content, nb::arg("path"), "The content of a file, mapped into memory if it is large.");
    m.def("invalid_utf8", &first_invalid, nb::arg("text"), nb::arg("plain") = false,
          "Where the first sequence that is not UTF-8 begins, in bytes; the text's size if there is none.");
    m.def("replace_invalid_utf8", &replaced_invalid, nb::arg("text"), nb::arg("replacement"),
          "The text with something else for each malformed sequence, and their number.");
    m.def(
        "unfinished_character", [](nb::handle text) { return unfinished_character(Text(text).bytes()); },
        nb::arg("text"), "How many bytes at the end begin a character that more bytes may finish.");
    m.def("json_texts", &json_texts, nb::arg("lines"), nb::arg("key"),
          "The string under a key in each line of JSON; None where a full parser has to decide.");
    m.def("take_documents", &take_documents, nb::arg("ids"), nb::arg("offsets"), nb::arg("rows"),
          nb::arg("begin").none(), nb::arg("end").none(), nb::arg("short_ids"),
          "(ids, offsets) of some documents, each between two ids that begin and end it.");
    m.def("parse_ranks", &parse_ranks_file, nb::arg("text"),
          "Tokens joined, their offsets as bytes of uint64, their ranks as bytes of uint32.");
    m.def("strings", &strings_of, nb::arg("content"), nb::arg("at"), nb::arg("count"),
          "So many strings of a GGUF, each behind its length as uint64, and where they end; None beyond the content.");
    m.def(
        "classes_of",
        [](std::uint32_t code_point) {
            if (code_point >= 0x110000) throw std::invalid_argument("code points are below 0x110000");
            return classes_of(code_point);
        },
        nb::arg("code_point"), "The class bits of a code point.");

    nb::class_<SpecialTokens>(m, "SpecialTokens")
        .def(nb::new_(&make_special_tokens), nb::arg("tokens"))
        .def("first_in", &first_special, nb::arg("text").none(),
             "The first of the tokens that stands in a text, or None.")
        .def("all_in", &all_specials, nb::arg("text").none(), "Where the tokens stand, in bytes: (begin, end, id).")
        .def("first_of", &first_special_of, nb::arg("texts"), nb::arg("separator").none(),
             "The number of the first of the texts in which one stands outside the separators, and which; or None.");

    nb::class_<TokenizerBase>(m, "TokenizerBase")
        .def(nb::init<nb::object, nb::object>(), nb::arg("core").none(), nb::arg("all_special"))
        .def("encode_ordinary", &TokenizerBase::encode_ordinary, nb::arg("text").none(),
             R"(The ids of `text`, in which special tokens are text like any other.

Lone surrogates become U+FFFD, as in tiktoken. Bytes are taken too: a byte that is not part of well-formed UTF-8 counts
as one character that is neither letter, number nor white space, and is kept.)")
        .def("encode_to_numpy", &TokenizerBase::encode_to_numpy, nb::arg("text").none(), nb::kw_only(),
             nb::arg("allowed_special").none() = nb::steal(PyFrozenSet_New(nullptr)),
             nb::arg("disallowed_special").none() = "all", "As `encode`, but an array [tokens] of uint32.")
        .def("_encode_without_special", &TokenizerBase::encode_without_special, nb::arg("text").none());

    nb::class_<PythonEncoder>(m, "Encoder")
        .def(nb::init<nb::bytes, InputArray<std::uint64_t>, InputArray<Id>, int, nb::dict, const std::string&, bool>(),
             nb::arg("tokens"), nb::arg("offsets"), nb::arg("ids"), nb::arg("pattern"), nb::arg("special_tokens"),
             nb::arg("kernel") = kernels().front().name, nb::arg("merges_only") = false)
        .def("encode", &PythonEncoder::encode, nb::arg("text").none(), nb::arg("special").none())
        .def("encode_to_numpy", &PythonEncoder::encode_to_numpy, nb::arg("text").none(), nb::arg("special").none())
        .def("count", &PythonEncoder::count, nb::arg("text").none(), nb::arg("special").none())
        .def("encode_all", &PythonEncoder::encode_all, nb::arg("texts"), nb::arg("special").none(), nb::arg("threads"),
             nb::arg("separator").none() = nb::none(), nb::arg("short_ids") = false, nb::arg("out").none() = nb::none())
        .def("lists", &PythonEncoder::lists, nb::arg("ids"), nb::arg("offsets"))
        .def("encode_pretokens", &PythonEncoder::encode_pretokens, nb::arg("pretokens"))
        .def("merge", &PythonEncoder::merge, nb::arg("pretoken"))
        .def("merge_plain", &PythonEncoder::merge_plain, nb::arg("pretoken"))
        .def("find", &PythonEncoder::find, nb::arg("token"))
        .def("bytes_of", &PythonEncoder::bytes_of, nb::arg("id"))
        .def("token_bytes", &PythonEncoder::token_bytes, nb::arg("id"))
        .def("token_sizes", &PythonEncoder::token_sizes, nb::arg("count"))
        .def_prop_ro("id_limit", &PythonEncoder::id_limit)
        .def("decode", &PythonEncoder::decode, nb::arg("ids"), nb::arg("errors"))
        .def("decode_bytes", &PythonEncoder::decode_bytes, nb::arg("ids"))
        .def("limit_cache", &PythonEncoder::limit_cache, nb::arg("bytes"))
        .def("pairs", &PythonEncoder::pairs)
        .def_prop_ro("longest_token", &PythonEncoder::longest_token)
        .def_prop_ro("pair_count", &PythonEncoder::pair_count);

    nb::class_<PythonStream>(m, "Stream")
        .def(nb::init<const PythonEncoder&, std::shared_ptr<const SpecialTokens>,
                      std::shared_ptr<const SpecialTokens>>(),
             nb::arg("encoder"), nb::arg("special").none(), nb::arg("forbidden").none(), nb::keep_alive<1, 2>())
        .def("feed", &PythonStream::feed, nb::arg("text").none(),
             "The ids that are certain now, or the forbidden token in the text; then nothing of it is taken.")
        .def("flush", &PythonStream::flush);

    nb::class_<Counter>(m, "Counter")
        .def(
            "__init__",
            [](Counter* self, int pattern, std::shared_ptr<SpecialTokens> special) {
                new (self) Counter(pattern_of(pattern), std::move(special));
            },
            nb::arg("pattern"), nb::arg("special"))
        .def(
            "add",
            [](Counter& self, nb::handle objects, std::uint64_t weight, std::size_t threads) {
                const Texts texts(objects);
                const nb::gil_scoped_release release;
                self.add(texts.spans, weight, threads);
            },
            nb::arg("texts"), nb::arg("weight"), nb::arg("threads"))
        .def(
            "add_pretokens",
            [](Counter& self, nb::handle objects, std::uint64_t weight) {
                self.add_pretokens(Texts(objects).spans, weight);
            },
            nb::arg("pretokens"), nb::arg("weight"))
        .def(
            "certain_part", [](const Counter& self, nb::handle text) { return self.certain_part(Text(text).bytes()); },
            nb::arg("text"), "How many of its first bytes can be counted apart from what follows, whatever that is.")
        .def("counts", &counted_words, "All pretokens: their bytes joined, the offsets, and the counts.")
        .def("cells", &Counter::cells, "How many bytes the distinct words have, with one more for each.")
        .def("memory", &Counter::memory, "In bytes, with what it may soon take.")
        .def(
            "write_runs",
            [](Counter& self, const std::vector<std::string>& paths) {
                const nb::gil_scoped_release release;
                self.write_runs(paths);
            },
            nb::arg("paths"), "Writes the table of each thread to a file, and forgets it.")
        .def("tables", &Counter::tables, "How many threads have a table: as many files as `write_runs` wants.")
        .def("__len__", [](Counter& self) { return self.words().size(); });

    m.def("merge_runs", &merge_runs, nb::arg("paths"), nb::arg("merged"), nb::call_guard<nb::gil_scoped_release>(),
          "Writes one run with the words of several, whose counts are added up.");
    m.def("train_merges", &train, nb::arg("counted"), nb::arg("tokens"), nb::arg("offsets"), nb::arg("ids"),
          nb::arg("merges"), nb::arg("min_frequency"), nb::arg("max_token_length"), nb::arg("threads"),
          nb::arg("progress"), nb::arg("save"), nb::arg("traced") = 0, nb::arg("trace").none() = nb::none(),
          nb::arg("keep") = false, nb::arg("memory") = 0,
          "Learns merges from a Counter, which is empty afterwards unless `keep`, or from a run. `progress` gets their "
          "number now and then; where it returns True, `save` gets the merges. In the end it gives these, how often "
          "each id is used, and the bytes of the new tokens with their offsets.");
}

}  // namespace bpe
