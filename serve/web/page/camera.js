// The camera or a chosen photo, and JPEG frames of either. Nothing is sent from here.

const MAX_SIDE = 960;

export async function openCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) return false;
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 960 } }, audio: false });
  } catch {
    return false;
  }
  await video.play();
  return true;
}

export function closeCamera(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

export const frameOfVideo = (video) => jpeg(video, video.videoWidth, video.videoHeight);

export async function frameOfFile(file) {
  const image = await createImageBitmap(file, { imageOrientation: "from-image" });
  return jpeg(image, image.width, image.height);
}

function jpeg(source, width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no frame"))), "image/jpeg", 0.88));
}
